//! The twelve-byte command field of a frame.

use std::fmt;

use crate::WireError;

/// A command name: ASCII, at most twelve bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Command([u8; 12]);

impl Command {
    pub(super) const BLOCK: Self = Self(*b"block\0\0\0\0\0\0\0");

    /// A command from its name; `None` if the name is empty, longer than 12 bytes or not printable ASCII.
    #[must_use]
    pub const fn new(name: &str) -> Option<Self> {
        let name = name.as_bytes();
        if name.is_empty() || name.len() > 12 {
            return None;
        }
        let mut bytes = [0; 12];
        let mut at = 0;
        while at < name.len() {
            if !(name[at].is_ascii_graphic() || name[at] == b' ') {
                return None;
            }
            bytes[at] = name[at];
            at += 1;
        }
        Some(Self(bytes))
    }

    /// Takes the field from a frame's header.
    ///
    /// # Errors
    /// [`WireError::Command`] if it is not printable ASCII followed by NULs only.
    pub fn from_bytes(bytes: [u8; 12]) -> Result<Self, WireError> {
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(12);
        std::str::from_utf8(&bytes[..len])
            .ok()
            .and_then(Self::new)
            .filter(|command| command.0 == bytes)
            .ok_or(WireError::Command { found: bytes })
    }

    /// The field as it travels.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(12);
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_command() {
        for bytes in [*b"\0\0\0\0\0\0\0\0\0\0\0\0", *b"ping\0x\0\0\0\0\0\0", *b"pi\xffg\0\0\0\0\0\0\0\0"] {
            assert_eq!(Command::from_bytes(bytes), Err(WireError::Command { found: bytes }));
        }
        let full = Command::from_bytes(*b"getcfheaders").unwrap();
        assert_eq!(full.as_str(), "getcfheaders");
    }
}
