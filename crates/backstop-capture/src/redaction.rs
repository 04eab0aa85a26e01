//! What is never copied out of memory.

/// Names, types and contents whose values are not shown.
///
/// Debug information goes past `Debug` implementations and past wrappers that hide
/// secrets, so the decision is made here, before a value's bytes are read.
///
/// # Example
///
/// ```
/// use backstop_capture::Redaction;
///
/// let mut redaction = Redaction::default();
/// redaction.names.push("iban".to_owned());
/// assert!(redaction.hides_name("customer_iban"));
/// assert!(redaction.hides_name("api_key"));
/// assert!(!redaction.hides_name("keyboard"));
/// assert!(redaction.hides_type("secrecy::SecretBox<str>"));
/// assert!(redaction.hides_text("Bearer abcdef0123456789"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    /// Words of a variable's, field's or map key's name, in lower case.
    ///
    /// A word matches whole words of the name (`key` matches `apiKey` and `api_key`,
    /// not `keyboard`); a word of eight letters or more matches anywhere.
    pub names: Vec<String>,
    /// Types: a path or its beginning where there is a `::`, else words of the type's own name.
    pub types: Vec<String>,
    /// Whether texts that look like credentials are hidden whatever their name:
    /// URLs with a password, bearer and basic credentials, private keys, tokens
    /// with well-known prefixes, card numbers.
    pub contents: bool,
}

const NAMES: [&str; 31] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "pass",
    "secret",
    "secrets",
    "token",
    "tokens",
    "apikey",
    "key",
    "auth",
    "authorization",
    "credential",
    "credentials",
    "cookie",
    "cookies",
    "csrf",
    "xsrf",
    "session",
    "sessionid",
    "sid",
    "jwt",
    "bearer",
    "private",
    "signature",
    "pin",
    "otp",
    "cvv",
    "cvc",
    "ssn",
];

/// Names that contain one of the words above and are harmless.
const HARMLESS: [&str; 8] = [
    "key_value",
    "primary_key",
    "foreign_key",
    "key_len",
    "key_count",
    "sort_key",
    "cache_key",
    "token_count",
];

const TYPES: [&str; 14] = [
    "secrecy::",
    "Secret",
    "Zeroizing",
    "Password",
    "Credential",
    "Authorization",
    "Cookie",
    "Bearer",
    "PrivateKey",
    "SigningKey",
    "HeaderMap",
    "HeaderValue",
    "rustls::",
    "ring::",
];

/// Beginnings of tokens that say what they are.
const TOKEN_PREFIXES: [&str; 13] = [
    "Bearer ",
    "bearer ",
    "Basic ",
    "basic ",
    "Digest ",
    "sk_live_",
    "rk_live_",
    "ghp_",
    "gho_",
    "github_pat_",
    "xoxb-",
    "AKIA",
    "eyJ",
];

impl Default for Redaction {
    fn default() -> Redaction {
        Redaction {
            names: NAMES.map(str::to_owned).to_vec(),
            types: TYPES.map(str::to_owned).to_vec(),
            contents: true,
        }
    }
}

impl Redaction {
    /// Hides nothing; for programs whose variables hold nothing secret.
    pub fn none() -> Redaction {
        Redaction {
            names: Vec::new(),
            types: Vec::new(),
            contents: false,
        }
    }

    /// Says whether a variable, field or map entry of this name is hidden.
    pub fn hides_name(&self, name: &str) -> bool {
        const LONG: usize = 8; // Long words are not parts of other words.
        if HARMLESS.iter().any(|harmless| is_lower_of(harmless, name)) {
            return false;
        }
        let is_hidden = |word| self.names.iter().any(|hidden| is_lower_of(hidden, word));
        if words(name).any(is_hidden) {
            return true;
        }
        let mut long = self.names.iter().filter(|hidden| hidden.len() >= LONG);
        name.len() >= LONG && {
            let joined = name.to_lowercase().replace(['_', '-'], "");
            long.any(|hidden| joined.contains(hidden.as_str()))
        }
    }

    /// Says whether a value of this type is hidden.
    pub fn hides_type(&self, path: &str) -> bool {
        // Only the type itself: `Option<Secret>` is walked and hides its content.
        let own = path.split('<').next().unwrap_or(path);
        let last = own.rsplit("::").next().unwrap_or(own);
        self.types.iter().any(|hidden| {
            if hidden.contains("::") {
                own.starts_with(hidden.as_str())
            } else {
                has_words(last, hidden)
            }
        })
    }

    /// Says whether a text is hidden for what it contains.
    pub fn hides_text(&self, text: &str) -> bool {
        if !self.contents {
            return false;
        }
        let marks = Marks::of(text);
        TOKEN_PREFIXES
            .iter()
            .any(|prefix| text.starts_with(prefix) && text.len() > prefix.len() + 8)
            || marks.dashes >= 5 && text.contains("-----BEGIN ") && text.contains("PRIVATE KEY")
            || marks.colons > 0 && marks.ats > 0 && has_userinfo(text)
            || (marks.colons > 0 || marks.equals > 0) && has_secret_parameter(text)
            || marks.digits >= CARD_DIGITS_MIN && has_card_number(text)
    }
}

/// The words of `snake_case`, `kebab-case`, `camelCase` and `Header-Case` names.
///
/// This is asked for each name and type of each value, so nothing is allocated.
fn words(name: &str) -> impl Iterator<Item = &str> + Clone {
    let parts = name.split(|c: char| !c.is_alphanumeric());
    parts.flat_map(camel_words).filter(|word| !word.is_empty())
}

fn camel_words(part: &str) -> impl Iterator<Item = &str> + Clone {
    let mut rest = part;
    std::iter::from_fn(move || {
        let mut previous_lower = false;
        let end = rest.char_indices().find(|(_, c)| {
            let begins = c.is_uppercase() && previous_lower;
            previous_lower = c.is_lowercase();
            begins
        });
        let (word, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// Whether the words of a name follow one another in another name.
fn has_words(name: &str, wanted: &str) -> bool {
    let mut from = words(name);
    words(wanted).next().is_some()
        && loop {
            let mut here = from.clone();
            let same = |word| here.next().is_some_and(|own| lower(own).eq(lower(word)));
            if words(wanted).all(same) {
                break true;
            }
            if from.next().is_none() {
                break false;
            }
        }
}

fn is_lower_of(text: &str, word: &str) -> bool {
    if word.is_ascii() {
        let mut lower = word.bytes().map(|byte| byte.to_ascii_lowercase());
        return text.len() == word.len() && text.bytes().all(|byte| lower.next() == Some(byte));
    }
    // A letter has no more bytes in one case than four times those in the other.
    text.len() <= word.len() * 4 && text.chars().eq(lower(word))
}

fn lower(word: &str) -> impl Iterator<Item = char> {
    word.chars().flat_map(|c| {
        let (ascii, other) = if c.is_ascii() {
            (Some(c.to_ascii_lowercase()), None)
        } else {
            (None, Some(c.to_lowercase()))
        };
        ascii.into_iter().chain(other.into_iter().flatten())
    })
}

/// How often a text has the characters without which nothing in it can be a credential.
///
/// Most texts have none, and this is asked for every text.
#[derive(Default)]
struct Marks {
    colons: usize,
    equals: usize,
    ats: usize,
    dashes: usize,
    digits: usize,
}

impl Marks {
    fn of(text: &str) -> Marks {
        let mut marks = Marks::default();
        for byte in text.bytes() {
            match byte {
                b':' => marks.colons += 1,
                b'=' => marks.equals += 1,
                b'@' => marks.ats += 1,
                b'-' => marks.dashes += 1,
                b'0'..=b'9' => marks.digits += 1,
                _ => {}
            }
        }
        marks
    }
}

/// `scheme://user:password@host`.
fn has_userinfo(text: &str) -> bool {
    text.match_indices("://").any(|(at, _)| {
        let rest = &text[at + 3..];
        let authority = rest
            .split(['/', '?', '#', ' ', '"', '\n'])
            .next()
            .unwrap_or("");
        authority
            .rsplit_once('@')
            .is_some_and(|(userinfo, _)| userinfo.contains(':'))
    })
}

/// `?token=…`, `password=…;` and `"password":"…"` in connection strings, queries and documents.
fn has_secret_parameter(text: &str) -> bool {
    const PARAMETERS: [&str; 8] = [
        "password",
        "passwd",
        "pwd",
        "secret",
        "token",
        "api_key",
        "apikey",
        "access_key",
    ];
    let lower = text.to_lowercase();
    PARAMETERS.iter().any(|name| {
        lower.match_indices(name).any(|(at, _)| {
            let rest = lower[at + name.len()..].trim_start_matches(['"', '\'', ' ', '\\']);
            rest.starts_with('=') && rest.len() > 1 && !rest.starts_with("==")
                || rest.starts_with(':') && rest.len() > 1 && lower[at..].contains(['"', '\''])
        })
    })
}

/// Digits of the shortest card number.
const CARD_DIGITS_MIN: usize = 13;

/// 13 to 19 digits, with spaces or dashes between, whose Luhn checksum is right.
fn has_card_number(text: &str) -> bool {
    let mut digits = Vec::new();
    for c in text.chars().chain(['x']) {
        match c.to_digit(10) {
            Some(digit) => digits.push(digit),
            None if (c == ' ' || c == '-') && !digits.is_empty() => {}
            None => {
                if (CARD_DIGITS_MIN..=19).contains(&digits.len()) && luhn(&digits) {
                    return true;
                }
                digits.clear();
            }
        }
    }
    false
}

fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let redaction = Redaction::default();
        for name in [
            "password",
            "user_password",
            "apiKey",
            "X-Api-Key",
            "db_pass",
            "auth_token",
            "SESSION",
        ] {
            assert!(redaction.hides_name(name), "{name}");
        }
        for name in [
            "passenger",
            "monkey",
            "author",
            "compass",
            "tokenizer",
            "cache_key",
            "keys",
            "",
            "__",
        ] {
            assert!(!redaction.hides_name(name), "{name}");
        }
    }

    #[test]
    fn words_of_names() {
        let words = |name| words(name).collect::<Vec<_>>();
        assert_eq!(words("api_key"), ["api", "key"]);
        assert_eq!(words("apiKey"), ["api", "Key"]);
        assert_eq!(words("X-Api-Key"), ["X", "Api", "Key"]);
        assert_eq!(words("HTTPServer2x"), ["HTTPServer2x"]);
        assert_eq!(words("größeÄnderung"), ["größe", "Änderung"]);
        assert_eq!(words("__a__b"), ["a", "b"]);
        assert!(words("").is_empty() && words("_-").is_empty());
        assert!(has_words("MyPrivateKeyPair", "PrivateKey"));
        assert!(has_words("private_key", "PrivateKey"));
        assert!(!has_words("PrivateMonkey", "PrivateKey"));
        assert!(!has_words("Private", "PrivateKey") && !has_words("Private", ""));
    }

    #[test]
    fn types() {
        let redaction = Redaction::default();
        for ty in [
            "secrecy::SecretBox<str>",
            "shop::ApiSecret",
            "rustls::conn::Keys",
            "zeroize::Zeroizing<[u8; 32]>",
        ] {
            assert!(redaction.hides_type(ty), "{ty}");
        }
        for ty in [
            "alloc::string::String",
            "core::option::Option<secrecy::SecretBox<str>>",
            "shop::Secretary<u8>::x::Y",
        ] {
            assert!(!redaction.hides_type(ty), "{ty}");
        }
    }

    #[test]
    fn contents() {
        let redaction = Redaction::default();
        for text in [
            "postgres://shop:hunter2@db/shop",
            "://shop:hunter2@db",
            "Basic dXNlcjpwYXNzd29yZA==",
            "4111 1111 1111 1111",
            "host=db password=hunter2",
            "{\"password\": \"hunter2\"}",
            "https://x.test/?access_token=abcdef",
            "-----BEGIN RSA PRIVATE KEY-----",
        ] {
            assert!(redaction.hides_text(text), "{text}");
        }
        for text in [
            "https://shop.test/a@b",
            "order 4111111111111112",
            "Basic",
            "the token was wrong",
            "",
            "wrong password",
            "1234567890123",
        ] {
            assert!(!redaction.hides_text(text), "{text}");
        }
    }
}
