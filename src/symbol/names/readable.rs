//! Names as people write them: C++ and Rust symbols demangled, symbol versions left out.

use std::borrow::Cow;
use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, Symbol};

/// A symbol longer than this stays as it is.
const MOST_MANGLED: usize = 16 << 10;
/// A readable name is cut here: a few bytes of substitutions can stand for gigabytes.
const MOST_READABLE: usize = 16 << 10;

/// The readable form of a symbol's name.
pub(super) fn readable(symbol: &str) -> Cow<'_, str> {
    // `memcpy@@GLIBC_2.14`: the linker writes versions into names of the full table.
    let symbol = match symbol.find('@') {
        Some(at) if 0 < at => &symbol[..at],
        _ => symbol,
    };
    if MOST_MANGLED < symbol.len() {
        return Cow::Borrowed(symbol);
    }
    // Rust first: its older names are C++ names too, with a hash at the end.
    rust(symbol)
        .or_else(|| cpp(symbol))
        .map_or(Cow::Borrowed(symbol), Cow::Owned)
}

fn rust(symbol: &str) -> Option<String> {
    let name = rustc_demangle::try_demangle(symbol).ok()?;
    let mut text = Short::default();
    // `{:#}` leaves out the hash.
    write!(text, "{name:#}").ok()?;
    Some(text.0)
}

fn cpp(symbol: &str) -> Option<String> {
    if !symbol.starts_with("_Z") && !symbol.starts_with("_GLOBAL_") {
        return None;
    }
    let parsed = Symbol::new(symbol).ok()?;
    let mut text = Short::default();
    let options = DemangleOptions::new();
    parsed.structured_demangle(&mut text, &options).ok()?;
    Some(text.0)
}

/// Text that refuses to grow too long.
#[derive(Default)]
struct Short(String);

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if MOST_READABLE < self.0.len() + text.len() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[track_caller]
    fn check(symbol: &str, expected: &str) {
        assert_eq!(readable(symbol), expected);
    }

    #[test]
    fn names_of_every_language_are_readable() {
        check("main", "main");
        check("_ZN3foo3barEi", "foo::bar(int)");
        check(
            "_ZNSt6vectorIiSaIiEE9push_backERKi",
            "std::vector<int, std::allocator<int> >::push_back(int const&)",
        );
        check("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write");
        check(
            "_RNvCskwGfYPst2Cb_3foo16example_function",
            "foo::example_function",
        );
        check("runtime.(*mheap).sysAlloc", "runtime.(*mheap).sysAlloc");
        check("_Z3foov.cold", "foo() [clone .cold]");
    }

    #[test]
    fn versions_are_no_part_of_a_name() {
        check("memcpy@@GLIBC_2.14", "memcpy");
        check("old@GLIBC_2.2.5", "old");
        check("@odd", "@odd");
    }

    #[test]
    fn what_only_looks_mangled_stays() {
        check("_Z", "_Z");
        check("_ZN", "_ZN");
        check("_R", "_R");
    }

    #[test]
    fn a_name_that_would_grow_without_end_stays_mangled() {
        // Each template argument repeats all before it.
        let mut symbol = String::from("_Z1fI1AE");
        let mut arguments = String::from("1BIS_S_E");
        for _ in 0..12 {
            arguments = format!("1BI{arguments}{arguments}E");
        }
        symbol.push_str(&arguments);
        assert!(readable(&symbol).len() <= symbol.len().max(super::MOST_READABLE));
    }
}
