//! Who brings how much: a line for each peer, the fastest first.

use serde_json::{Value, json};
use tipward_chain::sync::{PeerProgress, Progress};

use super::printable;

/// How many peers are shown.
pub(super) const MAX_SHOWN: usize = 10;

/// Those to show, the fastest first.
fn shown(progress: &Progress) -> Vec<&PeerProgress> {
    let mut peers: Vec<&PeerProgress> = progress.shares.iter().collect();
    peers.sort_by_key(|peer| {
        let share = &peer.share;
        (std::cmp::Reverse((share.rate, share.bytes)), share.peer)
    });
    peers.truncate(MAX_SHOWN);
    peers
}

/// What part of all bytes the peers' that are connected came from this one; 0 before the first.
fn part(peer: &PeerProgress, progress: &Progress) -> f64 {
    let all: u64 = progress.shares.iter().map(|peer| peer.share.bytes).sum();
    if all == 0 { 0.0 } else { peer.share.bytes as f64 / all as f64 }
}

/// A line for each, in columns; none before blocks are asked for.
pub(super) fn lines(progress: &Progress) -> Vec<String> {
    let is_used = |peer: &PeerProgress| peer.share.blocks > 0 || peer.share.in_flight > 0;
    if !progress.shares.iter().any(is_used) {
        return Vec::new();
    }
    let shown = shown(progress);
    let addresses: Vec<String> = shown.iter().map(|peer| printable(&peer.address.to_string())).collect();
    let width = addresses.iter().map(|address| address.chars().count()).max().unwrap_or(0);
    let line = |(peer, address): (&&PeerProgress, &String)| {
        format!(
            "  {address:width$}  {:>10}  {:3.0} %  {:3} in flight  {} blocks",
            rate(peer.share.rate),
            100.0 * part(peer, progress),
            peer.share.in_flight,
            peer.share.blocks,
        )
    };
    let mut lines: Vec<String> = shown.iter().zip(&addresses).map(line).collect();
    if progress.shares.len() > shown.len() {
        lines.push(format!("  and {} more", progress.shares.len() - shown.len()));
    }
    lines
}

/// The same for programs.
pub(super) fn values(progress: &Progress) -> Vec<Value> {
    let value = |peer: &PeerProgress| {
        json!({
            "address": peer.address.to_string(),
            "user_agent": peer.user_agent,
            "bytes_per_second": peer.share.rate,
            "share": part(peer, progress),
            "in_flight": peer.share.in_flight,
            "blocks": peer.share.blocks,
            "bytes": peer.share.bytes,
        })
    };
    shown(progress).into_iter().map(value).collect()
}

/// A rate in bytes a second.
pub(super) fn rate(bytes: u64) -> String {
    format!("{:.1} MB/s", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use tipward_chain::sync::{
        PeerShare,
        peer::{PeerAddress, PeerId},
    };

    use super::*;

    fn progress(peers: &[(&str, u64, u64, usize)]) -> Progress {
        let mut progress = Progress::default();
        for (number, &(host, rate, bytes, in_flight)) in (0..).zip(peers) {
            progress.shares.push(PeerProgress {
                address: PeerAddress { host: host.to_owned(), port: 8333 },
                user_agent: "/node:1/".to_owned(),
                share: PeerShare { peer: PeerId(number), blocks: bytes / 1000, bytes, rate, in_flight },
            });
        }
        progress
    }

    #[test]
    fn the_fastest_come_first_and_say_what_they_bring() {
        let progress = progress(&[
            ("10.0.0.1", 1_500_000, 1_000_000, 3),
            ("seed.example.org", 0, 0, 0),
            ("10.0.0.2", 98_765_432, 3_000_000, 16),
        ]);
        let expected = [
            "  10.0.0.2:8333           98.8 MB/s   75 %   16 in flight  3000 blocks",
            "  10.0.0.1:8333            1.5 MB/s   25 %    3 in flight  1000 blocks",
            "  seed.example.org:8333    0.0 MB/s    0 %    0 in flight  0 blocks",
        ];
        assert_eq!(lines(&progress), expected);
        let values = values(&progress);
        assert_eq!(values.len(), 3);
        let expected = json!({
            "address": "10.0.0.2:8333",
            "user_agent": "/node:1/",
            "bytes_per_second": 98_765_432,
            "share": 0.75,
            "in_flight": 16,
            "blocks": 3000,
            "bytes": 3_000_000,
        });
        assert_eq!(values[0], expected);
    }

    #[test]
    fn before_blocks_are_asked_for_there_is_nothing_to_show() {
        let progress = progress(&[("10.0.0.1", 0, 0, 0)]);
        assert!(lines(&progress).is_empty());
        assert_eq!(values(&progress)[0]["share"], 0.0);
    }

    #[test]
    fn many_peers_are_few_lines() {
        let peers: Vec<(&str, u64, u64, usize)> = (0..40).map(|n| ("10.0.0.1", n, 1000, 1)).collect();
        let progress = progress(&peers);
        let lines = lines(&progress);
        assert_eq!((lines.len(), &lines[10][..]), (MAX_SHOWN + 1, "  and 30 more"));
        assert_eq!(values(&progress).len(), MAX_SHOWN);
        assert_eq!(values(&progress)[9]["bytes_per_second"], 30);
    }

    #[test]
    fn an_address_can_not_move_the_cursor() {
        let progress = progress(&[("10.0.0.1\u{1b}[2J", 1, 1000, 1)]);
        assert!(!lines(&progress)[0].contains('\u{1b}'));
    }
}
