//! Text that a tracee chose (file names, command names, strings), made harmless.
//!
//! A name may hold any byte but NUL. What could move the cursor, change colours, reorder or hide
//! text is shown as an escape: `\n`, `\x1b`, `\u{202e}`.

use std::fmt::Write;

/// Appends `bytes` to `out`, harmless and on one line. Without `unicode` only ASCII is left: a
/// terminal with another encoding could take the bytes of a harmless letter for a control.
pub fn escape(bytes: &[u8], unicode: bool, out: &mut String) {
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        // ASCII was tested just now, so nothing is lost.
        out.push_str(&String::from_utf8_lossy(bytes));
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            escape_char(char, unicode, out);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// [`escape`] into a new string.
pub fn escaped(bytes: &[u8], unicode: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    escape(bytes, unicode, &mut out);
    out
}

fn escape_char(char: char, unicode: bool, out: &mut String) {
    let _ = match char {
        ' '..='~' => {
            out.push(char);
            Ok(())
        }
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\0'..='\x1f' | '\x7f' => write!(out, "\\x{:02x}", u32::from(char)),
        _ if unicode && !hides_or_reorders(char) => {
            out.push(char);
            Ok(())
        }
        _ => write!(out, "\\u{{{:x}}}", u32::from(char)),
    };
}

/// C1 controls, and characters that print nothing themselves but change what others look like.
fn hides_or_reorders(char: char) -> bool {
    matches!(char,
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(bytes: &[u8], text: &str) {
        assert_eq!(escaped(bytes, true), text);
    }

    #[test]
    fn a_name_cannot_speak_to_the_terminal() {
        check(b"/usr/lib/libc.so.6", "/usr/lib/libc.so.6");
        check(b"a\x1b[2Jb\n\r\t\x07\x7f", "a\\x1b[2Jb\\n\\r\\t\\x07\\x7f");
        check("\u{9b}31m".as_bytes(), "\\u{9b}31m");
        check("a\u{202e}gpj.exe".as_bytes(), "a\\u{202e}gpj.exe");
        check(b"caf\xe9", "caf\\xe9");
        check("日本語 é".as_bytes(), "日本語 é");
    }

    #[test]
    fn without_unicode_only_ascii_is_left() {
        assert_eq!(escaped("é日".as_bytes(), false), "\\u{e9}\\u{65e5}");
    }

    proptest! {
        #[test]
        fn no_control_survives(bytes: Vec<u8>) {
            let text = escaped(&bytes, true);
            prop_assert!(!text.chars().any(char::is_control), "{text:?}");
            prop_assert!(escaped(&bytes, false).bytes().all(|byte| matches!(byte, b' '..=b'~')));
        }
    }
}
