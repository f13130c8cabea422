//! The pool as a table for people. The star marks the primary peer.

use std::time::Duration;

use indicatif::HumanBytes;
use tipward_chain::sync::peer::{PeerState, PeerView};

use super::snapshot::{Snapshot, direction, state, status, transport};

/// The heads of the columns, and which are numbers.
const COLUMNS: [(&str, bool); 16] = [
    ("", false),
    ("address", false),
    ("state", false),
    ("status", false),
    ("direction", false),
    ("via", false),
    ("height", true),
    ("ping", true),
    ("score", true),
    ("in", true),
    ("out", true),
    ("up", true),
    ("misb.", true),
    ("err.", true),
    ("t/o", true),
    ("agent", false),
];
/// The longest user agent shown, in characters.
const AGENT: usize = 24;

type Row = [String; COLUMNS.len()];

impl Snapshot {
    /// The lines of the table, and one that sums up.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut rows = vec![COLUMNS.map(|(name, _)| name.to_owned())];
        rows.extend(self.peers.iter().map(row));
        let mut widths = [0; COLUMNS.len()];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
        lines.push(self.summary());
        lines
    }

    fn summary(&self) -> String {
        let offset = self.time_offset.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:+} ms"));
        format!(
            "{}: {} of {} peers ready; addresses: {} known, {} tried, {} banned; network time offset: {offset}",
            self.network.name,
            self.ready(),
            self.target,
            self.book.total,
            self.book.tried,
            self.book.banned,
        )
    }
}

fn line(row: &Row, widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).zip(COLUMNS).map(|((cell, &width), (_, is_number))| {
        if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn row(peer: &PeerView) -> Row {
    let none = || "-".to_owned();
    let mut row: Row = std::array::from_fn(|_| none());
    row[0] = if peer.is_primary { "*".to_owned() } else { String::new() };
    row[1] = peer.address.to_string();
    row[2] = state(&peer.state).to_owned();
    row[4] = direction(peer.direction).to_owned();
    row[12] = format!("{:.0}", peer.misbehaviour);
    if let PeerState::Ready {
        info,
        status: by_silence,
        encrypted,
        up_time,
        figures,
        errors,
        time_outs,
        weight,
    } = &peer.state
    {
        row[3] = status(*by_silence).to_owned();
        row[5] = transport(*encrypted).to_owned();
        row[6] = info.claimed_height.to_string();
        row[7] = figures.and_then(|figures| figures.ping).map_or_else(none, milliseconds);
        row[8] = format!("{weight:.0}");
        row[9] = figures.map_or_else(none, |figures| HumanBytes(figures.received).to_string());
        row[10] = figures.map_or_else(none, |figures| HumanBytes(figures.sent).to_string());
        row[11] = age(*up_time);
        row[13] = errors.to_string();
        row[14] = time_outs.to_string();
        row[15] = agent(&info.user_agent);
    }
    row
}

fn milliseconds(ping: Duration) -> String {
    let ms = ping.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A peer's words, cut, and without characters that could change how the rest of the line looks.
pub(super) fn agent(text: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let mut cut: String = text.chars().filter(|c| !c.is_control()).take(AGENT + 1).map(shown).collect();
    if cut.len() > AGENT {
        cut.truncate(AGENT - 2);
        cut.push_str("..");
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_neither_moves_the_cursor_nor_widens_the_table() {
        assert_eq!(agent("/Satoshi:29.0.0/"), "/Satoshi:29.0.0/");
        assert_eq!(agent("\u{1b}[2J/evil\n\t\u{7}/"), "[2J/evil/");
        assert_eq!(agent("/\u{202e}right to left/"), "/?right to left/");
        assert_eq!(agent(&"\u{1f980}".repeat(300)), format!("{}..", "?".repeat(AGENT - 2)));
        assert_eq!(agent(&"a".repeat(AGENT)), "a".repeat(AGENT));
    }

    #[test]
    fn ages_stay_short() {
        let shown = [0, 59, 60, 3599, 3600, 360_061].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "59s", "1m00s", "59m59s", "1h00m", "100h01m"]);
    }
}
