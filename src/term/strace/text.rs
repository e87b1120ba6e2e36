//! How strace writes bytes, addresses and descriptors.

use std::fmt;

/// `%#lx`: 0 is `0`.
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            value => write!(f, "{value:#x}"),
        }
    }
}

/// An address: 0 is `NULL`.
pub struct Pointer(pub u64);

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("NULL"),
            value => write!(f, "{value:#x}"),
        }
    }
}

/// A user or group number: all ones is -1, "none".
pub struct Owner(pub u32);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            u32::MAX => f.write_str("-1"),
            value => write!(f, "{value}"),
        }
    }
}

/// Bytes with everything that is not printable ASCII escaped, and `also` too: in octal as short as
/// what follows allows.
pub fn escape(bytes: &[u8], also: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for (i, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0x0b => out.push_str("\\v"),
            0x0c => out.push_str("\\f"),
            b' '..=b'~' if !also.contains(&byte) => out.push(char::from(byte)),
            _ => {
                let octal = matches!(bytes.get(i + 1), Some(b'0'..=b'7'));
                out.push_str(&match octal {
                    true => format!("\\{byte:03o}"),
                    false => format!("\\{byte:o}"),
                });
            }
        }
    }
    out
}

/// A descriptor and what it is open on, as `-y` shows it. The kernel marks a file that has no name
/// any more; a file whose name ends in the same word cannot be told from it here.
pub fn descriptor(number: i32, path: Option<&[u8]>) -> String {
    let Some(path) = path else {
        return number.to_string();
    };
    let (path, gone) = match path.strip_suffix(b" (deleted)") {
        Some(path) if path.starts_with(b"/") => (path, "(deleted)"),
        _ => (path, ""),
    };
    format!("{number}<{}>{gone}", escape(path, b"<>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        assert!(
            escape(&all, b"")
                .bytes()
                .all(|byte| (b' '..=b'~').contains(&byte))
        );
        assert_eq!(
            escape(b"\x1b[31m\xc3\xa9\x019", b""),
            "\\33[31m\\303\\251\\19"
        );
        assert_eq!(escape(b"\x017\x7f8", b""), "\\0017\\1778");
        assert_eq!(
            escape(b"\"\\\n\t\r\x0b\x0c\x07", b""),
            "\\\"\\\\\\n\\t\\r\\v\\f\\7"
        );
    }

    #[test]
    fn a_descriptor_says_what_it_is_open_on() {
        assert_eq!(descriptor(-1, None), "-1");
        assert_eq!(descriptor(3, Some(b"/a<b>")), "3</a\\74b\\76>");
        assert_eq!(descriptor(3, Some(b"/x (deleted)")), "3</x>(deleted)");
        assert_eq!(descriptor(3, Some(b"pipe:[1]")), "3<pipe:[1]>");
    }
}
