//! The patterns of the tables: text with `*` for any text.

/// Whether `text` is what `pattern` describes.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(before) else {
        return false;
    };
    let mut parts = after.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Whether the last parts of `path` are what `pattern` describes; a pattern that begins with `/`
/// describes all of it.
pub(super) fn is_path(pattern: &str, path: &str) -> bool {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    if pattern.starts_with('/') {
        return matches(pattern, path);
    }
    let parts = 1 + pattern.matches('/').count();
    let mut start = path.len();
    for _ in 0..parts {
        match path[..start].rfind('/') {
            Some(slash) => start = slash,
            None => return false,
        }
    }
    matches(pattern, &path[start + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        assert!(matches("runtime.mallocinit", "runtime.mallocinit"));
        assert!(!matches("runtime.mallocinit", "runtime.mallocinit.func1"));
        assert!(matches("a*", "a") && matches("*", "") && matches("*b", "ab"));
        assert!(matches("a*b*c", "a-b-b-c") && !matches("a*b*c", "a-c-b"));
        assert!(!matches("ab*ba", "aba"));
    }

    #[test]
    fn a_path_is_matched_by_its_last_parts() {
        let jvm = "/usr/lib/jvm/java-17/lib/server/libjvm.so";
        assert!(is_path("libjvm.so", jvm) && is_path("server/libjvm.so", jvm));
        assert!(!is_path("jvm.so", jvm) && !is_path("a/b/c/d/e/f/g/h/libjvm.so", jvm));
        assert!(is_path("/usr/lib/*", jvm));
        assert!(is_path("node", "/srv/node (deleted)"));
        assert!(!is_path("node", "[node]"));
    }
}
