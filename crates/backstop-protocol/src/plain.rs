//! Plain JSON: text that can be kept as it was sent and read later.
//!
//! Plain is what has the same meaning for every reader of JSON: no form that only clients know, no
//! number that a float cannot hold exactly, no depth that would be cut. Text goes in, and what
//! comes out is where a plain value ends, or the names and texts inside it; nothing is read into
//! maps and lists.

use crate::json::Reader;
use crate::scan::{skip_space, special_byte};
use crate::secret::may_be_name;

/// A name or text inside a value, as [`crate::Lazy::any_piece`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The key of a member. The first text of a list is shown as a name and as a text, because a
    /// list may be a pair of name and value.
    Name(&'a str),
    /// A text.
    Text(&'a str),
}

/// Plain text, and what is known of it since it was looked through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain<'a> {
    pub(crate) text: &'a str,
    /// A name in it may be that of a secret; see [`crate::secret::is_name`].
    pub(crate) may_name_secret: bool,
}

/// Returns where the plain value that begins at `at` ends, and whether a name in it may be that of
/// a secret; `None` if it is not plain.
pub(crate) fn end_of_value(text: &str, at: usize, depth_max: usize) -> Option<(usize, bool)> {
    let mut may_name_secret = false;
    let end = walk(text, at, depth_max, &mut |piece, escaped| {
        if let Piece::Name(name) = piece {
            may_name_secret |= escaped || may_be_name(name);
        }
        true
    })?;
    Some((end, may_name_secret))
}

/// Returns where the plain list of texts that begins at `at` ends; `None` if it is empty or not
/// plain.
pub(crate) fn end_of_lines(text: &str, mut at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut next = b'[';
    loop {
        if skip_space(bytes, &mut at) != next {
            return None;
        }
        at += 1;
        if skip_space(bytes, &mut at) != b'"' {
            return None;
        }
        at = plain_string(text, at + 1)?.0;
        if skip_space(bytes, &mut at) == b']' {
            return Some(at + 1);
        }
        next = b',';
    }
}

/// Says whether `found` says yes to a name or text of a plain value.
pub(crate) fn any_piece(
    text: &str,
    texts: bool,
    found: &mut impl FnMut(Piece<'_>) -> bool,
) -> bool {
    let mut any = false;
    walk(text, 0, usize::BITS as usize, &mut |piece, escaped| {
        any = match piece {
            Piece::Text(_) if !texts => false,
            _ if !escaped => found(piece),
            Piece::Name(text) => found(Piece::Name(&unescaped(text))),
            Piece::Text(text) => found(Piece::Text(&unescaped(text))),
        };
        !any
    });
    any
}

/// Goes through the plain value that begins at `at`, without recursion, and returns where it ends;
/// `None` if it is not plain or `each` said that this is enough.
///
/// `each` gets names and texts as they stand between their quotes, and whether escapes are in them.
fn walk<'a>(
    text: &'a str,
    mut at: usize,
    depth_max: usize,
    each: &mut impl FnMut(Piece<'a>, bool) -> bool,
) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0;
    // One bit for each open object or list, the innermost lowest: 1 is an object.
    let mut objects = 0_u64;
    let mut first = false;
    loop {
        let opened = skip_space(bytes, &mut at);
        match opened {
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max.min(64) {
                    return None;
                }
                objects = objects << 1 | u64::from(opened == b'{');
                at += 1;
                // `{` and `}` and also `[` and `]` are two apart in ASCII.
                if skip_space(bytes, &mut at) == opened + 2 {
                    at += 1;
                    depth -= 1;
                    objects >>= 1;
                } else if opened == b'{' {
                    at = walk_key(text, at, each)?;
                    first = false;
                    continue;
                } else {
                    first = true;
                    continue;
                }
            }
            b'"' => {
                let from = at + 1;
                let (end, escaped) = plain_string(text, from)?;
                let string = &text[from..end - 1];
                if first && !each(Piece::Name(string), escaped) {
                    return None;
                }
                if !each(Piece::Text(string), escaped) {
                    return None;
                }
                at = end;
            }
            _ => at = plain_word(bytes, at)?,
        }
        first = false;
        loop {
            if depth == 0 {
                return Some(at);
            }
            let in_object = objects & 1 == 1;
            match skip_space(bytes, &mut at) {
                b',' => {
                    at += 1;
                    if in_object {
                        at = walk_key(text, at, each)?;
                    }
                    break;
                }
                b'}' if in_object => {}
                b']' if !in_object => {}
                _ => return None,
            }
            at += 1;
            depth -= 1;
            objects >>= 1;
        }
    }
}

/// Goes over a key and its colon.
fn walk_key<'a>(
    text: &'a str,
    mut at: usize,
    each: &mut impl FnMut(Piece<'a>, bool) -> bool,
) -> Option<usize> {
    let bytes = text.as_bytes();
    if skip_space(bytes, &mut at) != b'"' {
        return None;
    }
    let from = at + 1;
    let (end, escaped) = plain_string(text, from)?;
    if !each(Piece::Name(&text[from..end - 1]), escaped) {
        return None;
    }
    at = end;
    (skip_space(bytes, &mut at) == b':').then_some(at + 1)
}

/// Goes over a string, which begins after its quote, and says whether it has escapes.
fn plain_string(text: &str, mut at: usize) -> Option<(usize, bool)> {
    let bytes = text.as_bytes();
    let mut escaped = false;
    loop {
        at += special_byte(bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some((at + 1, escaped));
        }
        escaped = true;
        at += match bytes.get(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => match hex4(bytes, at + 2)? {
                0xD800..0xDC00 => {
                    let low = bytes.get(at + 6..at + 8)? == b"\\u"
                        && matches!(hex4(bytes, at + 8)?, 0xDC00..0xE000);
                    low.then_some(12)?
                }
                0xDC00..0xE000 => return None,
                _ => 6,
            },
            _ => return None,
        };
    }
}

/// Whole numbers of so many digits fit into 64 bits.
const WHOLE_DIGITS_MAX: usize = 18;
/// Numbers with a point whose digits are below this are read alike by exact and by quick readers.
const EXACT_MAX: u64 = 1 << f64::MANTISSA_DIGITS;

/// Goes over a number or name.
fn plain_word(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    for name in [&b"null"[..], b"true", b"false"] {
        if rest.starts_with(name) {
            return Some(at + name.len());
        }
    }
    let from = usize::from(rest.first() == Some(&b'-'));
    let (mut value, mut digits) = (0_u64, 0);
    let mut point = None;
    let mut len = from;
    for byte in &rest[from..] {
        match byte {
            b'0'..=b'9' if digits < WHOLE_DIGITS_MAX => {
                value = value * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(digits),
            // An exponent, too many digits, or nothing that JSON knows.
            b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-' => return None,
            _ => break,
        }
        len += 1;
    }
    let whole = point.unwrap_or(digits);
    let exact = point.is_none_or(|point| point < digits && value < EXACT_MAX);
    // Zeros in front are no JSON, and minus nothing is not zero for everybody.
    let odd_zero = rest.get(from) == Some(&b'0') && (whole > 1 || from == 1);
    (whole > 0 && exact && !odd_zero).then_some(at + len)
}

/// Returns the string that stands between its quotes with its escapes undone.
fn unescaped(string: &str) -> String {
    let quoted = format!("\"{string}\"");
    match Reader::new(&quoted).string() {
        Ok(string) => string.into_owned(),
        // Only strings that were looked through come here.
        Err(_) => string.to_owned(),
    }
}

/// Returns the number that four hex digits are.
pub(crate) fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit * 16 + char::from(*digit).to_digit(16)?)
    })
}
