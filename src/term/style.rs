//! What the reader's terminal can show: colours, characters, columns. Decided once by the command
//! line and passed down, so that a renderer writes to anything.

use std::ffi::{OsStr, OsString};
use std::fmt;

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// As `NO_COLOR`, `CLICOLOR_FORCE` and the terminal say.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a piece of text means, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// As the terminal prints by default.
    Plain,
    /// Less important: times, births of threads.
    Dim,
    /// More important: names of spaces, headings.
    Strong,
    /// Address space without access: costs nothing.
    Reserved,
    /// Address space that may be touched.
    Committed,
    /// What was given back.
    Released,
    /// A call that failed, a process that was killed.
    Error,
    /// memtrace itself must be doubted: drift, lost events.
    Alarm,
}

const ROLES: usize = 8;

impl Role {
    fn look(self) -> owo_colors::Style {
        let look = owo_colors::Style::new();
        match self {
            Role::Plain => look,
            Role::Dim => look.dimmed(),
            Role::Strong => look.bold(),
            Role::Reserved => look.blue(),
            Role::Committed => look.yellow(),
            Role::Released => look.green(),
            Role::Error => look.red(),
            Role::Alarm => look.white().on_red().bold(),
        }
    }
}

/// What may be written to one output.
#[derive(Clone, Debug)]
pub struct Style {
    /// Characters beyond ASCII.
    pub unicode: bool,
    /// Columns of the terminal; `None` where lines may have any length (a file).
    pub width: Option<usize>,
    /// What begins each role and what ends it; empty without colour.
    codes: [(String, String); ROLES],
}

impl Style {
    /// Text for a file or a test: no colour; any width when it is `None`.
    pub fn plain(width: Option<usize>, unicode: bool) -> Style {
        Style {
            unicode,
            width,
            codes: Default::default(),
        }
    }

    /// The same with colours.
    pub fn colored(width: Option<usize>, unicode: bool) -> Style {
        const ALL: [Role; ROLES] = [
            Role::Plain,
            Role::Dim,
            Role::Strong,
            Role::Reserved,
            Role::Committed,
            Role::Released,
            Role::Error,
            Role::Alarm,
        ];
        let codes = ALL.map(|role| {
            let look = role.look();
            (
                look.prefix_formatter().to_string(),
                look.suffix_formatter().to_string(),
            )
        });
        Style {
            unicode,
            width,
            codes,
        }
    }

    /// What the user asked for and the environment allows. `terminal` is the number of columns if
    /// the output is a terminal; `env` reads an environment variable.
    pub fn choose(
        choice: ColorChoice,
        terminal: Option<usize>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Style {
        let set = |name| env(name).is_some_and(|value| !value.is_empty());
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR") => false,
            ColorChoice::Auto if set("CLICOLOR_FORCE") => {
                env("CLICOLOR_FORCE").as_deref() != Some(OsStr::new("0"))
                    || on_terminal(terminal, &env)
            }
            ColorChoice::Auto => on_terminal(terminal, &env),
        };
        let unicode = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(&env)
            .find(|value| !value.is_empty())
            .is_some_and(|locale| {
                let locale = locale.to_string_lossy().to_ascii_lowercase();
                locale.contains("utf-8") || locale.contains("utf8")
            });
        match color {
            true => Style::colored(terminal, unicode),
            false => Style::plain(terminal, unicode),
        }
    }

    /// What switches the look of `role` on.
    pub fn begin(&self, role: Role) -> &str {
        &self.codes[role as usize].0
    }

    /// What switches the look of `role` off.
    pub fn end(&self, role: Role) -> &str {
        &self.codes[role as usize].1
    }

    /// `shown` in the look of `role`.
    pub fn paint<T: fmt::Display>(&self, role: Role, shown: T) -> Painted<'_, T> {
        Painted {
            style: self,
            role,
            shown,
        }
    }

    /// `→`: becomes, results in.
    pub fn arrow(&self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }

    /// A minus sign as wide as a plus.
    pub fn minus(&self) -> &'static str {
        if self.unicode { "−" } else { "-" }
    }

    /// Stands for what was left out.
    pub fn ellipsis(&self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }
}

fn on_terminal(terminal: Option<usize>, env: &impl Fn(&str) -> Option<OsString>) -> bool {
    terminal.is_some() && env("TERM").as_deref() != Some(OsStr::new("dumb"))
}

/// See [`Style::paint`].
#[derive(Clone, Copy, Debug)]
pub struct Painted<'a, T> {
    style: &'a Style,
    role: Role,
    shown: T,
}

impl<T: fmt::Display> fmt::Display for Painted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.style.begin(self.role))?;
        // Width and precision asked for are those of the text, not of the codes around it.
        self.shown.fmt(f)?;
        f.write_str(self.style.end(self.role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn colored(choice: ColorChoice, terminal: Option<usize>, env: &[(&str, &str)], expect: bool) {
        let style = Style::choose(choice, terminal, |name| {
            let (_, value) = env.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(value))
        });
        assert_eq!(!style.begin(Role::Error).is_empty(), expect);
    }

    #[test]
    fn colour_is_decided_by_the_user_then_the_environment_then_the_terminal() {
        use ColorChoice::{Always, Auto, Never};
        colored(Auto, None, &[], false);
        colored(Auto, Some(80), &[], true);
        colored(Auto, Some(80), &[("TERM", "dumb")], false);
        colored(Auto, Some(80), &[("NO_COLOR", "1")], false);
        colored(Auto, Some(80), &[("NO_COLOR", "")], true);
        colored(Auto, None, &[("CLICOLOR_FORCE", "1")], true);
        colored(Auto, None, &[("CLICOLOR_FORCE", "0")], false);
        colored(Always, None, &[("NO_COLOR", "1")], true);
        colored(Never, Some(80), &[("CLICOLOR_FORCE", "1")], false);
    }

    #[test]
    fn characters_beyond_ascii_need_a_utf_8_locale() {
        let unicode = |locale: &'static str| {
            Style::choose(ColorChoice::Never, None, |name| {
                (name == "LANG").then(|| OsString::from(locale))
            })
            .unicode
        };
        assert!(unicode("en_US.UTF-8") && unicode("C.utf8"));
        assert!(!unicode("C") && !unicode("de_DE.ISO-8859-1"));
    }

    #[test]
    fn painted_text_keeps_its_width() {
        let style = Style::colored(None, true);
        assert_eq!(
            format!("{:>4}|", style.paint(Role::Error, "x")),
            "\u{1b}[31m   x\u{1b}[0m|"
        );
        assert_eq!(
            format!("{:>4}|", Style::plain(None, true).paint(Role::Error, "x")),
            "   x|"
        );
    }
}
