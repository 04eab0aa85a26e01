//! Finding bytes in text, several at a time: strings are most of an event.

/// Returns the next byte that is no white space, 0 at the end.
pub(crate) fn skip_space(bytes: &[u8], at: &mut usize) -> u8 {
    while let Some(byte) = bytes.get(*at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => *at += 1,
            byte => return *byte,
        }
    }
    0
}

/// Returns the place of the first quote or backslash.
pub(crate) fn special_byte(bytes: &[u8]) -> Option<usize> {
    first_of(b'"', b'\\', bytes)
}

/// Returns the place of the first byte that cannot stand in a string: a quote, a backslash or a
/// control character.
pub(crate) fn first_to_escape(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslashes = below(word ^ (ONES * u64::from(b'\\')), 1);
        let hits = quotes | backslashes | below(word, u64::from(b' '));
        if hits != 0 {
            return Some(index * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    Some(words.len() * 8 + rest.iter().position(special)?)
}

/// Returns the place of the first of two bytes.
///
/// Eight bytes at a time: strings are most of an event.
pub(crate) fn first_of(one: u8, other: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest marked byte is exact; higher ones may be marked wrongly by the borrow.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = zeros(word ^ (ONES * u64::from(one))) | zeros(word ^ (ONES * u64::from(other)));
        if hits != 0 {
            return Some(index * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let place = rest
        .iter()
        .position(|byte| *byte == one || *byte == other)?;
    Some(words.len() * 8 + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_at_every_place() {
        for len in 0..40 {
            for place in 0..len {
                for special in [b'"', b'\\'] {
                    let mut bytes = vec![0xFF_u8; len];
                    bytes[place] = special;
                    assert_eq!(special_byte(&bytes), Some(place));
                }
            }
            assert_eq!(special_byte(&vec![b'!'; len]), None);
        }
    }
}
