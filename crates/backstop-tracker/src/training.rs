//! Chooses what a dictionary holds: the parts of a project's events that most other events repeat.
//!
//! A dictionary is the better the longer what it holds in one piece: a body that stands in it whole
//! is a single reference. zstd's own trainer looks for short pieces, and from fewer than some 400
//! bodies it fills a fraction of the room. This one weighs windows of a few kilobytes by how many
//! events repeat each part of them, and takes the best window until the room is full, a greedy
//! answer to the problem of weighted maximum coverage; a window is weighed again only when its turn
//! comes (as in M. Minoux, 1978). Which size of window is best, bodies say that it was not shown.
//!
//! zstd's trainer is asked for the entropy tables alone, without which each body brings its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use zstd::zstd_safe::{CCtx, CDict, compress_bound};

use crate::codec::{LEVEL, attached};

/// Texts are compared in pieces of so many bytes.
const PIECE_BYTES: usize = 8;
/// Of the pieces those count whose hash ends with so many zeros, in all texts the same ones: one
/// of 32.
const SAMPLED_BITS: u32 = 5;
/// Pieces are counted under so many bits of their hash, so that few of 8 MB of text share a place.
const SLOT_BITS: u32 = 20;
/// Short windows cover more of events that share single frames, long ones more of a storm.
const WINDOWS: [usize; 4] = [4 << 10, 8 << 10, 16 << 10, 64 << 10];
/// A window counts as so much longer, because every reference to it costs some bytes as well.
const REFERENCE_BYTES: u64 = 64;
/// If less than this part of the pieces of a window is repeated once, it may be chance.
const REPEATED_PART: u64 = 4;
/// What is left of a window is not worth a reference of its own.
const LEFT_BYTES_MIN: usize = 16;
/// Bytes of windows that are weighed again until the best that was found must do: some tenths of a
/// second for each size of window.
const WEIGHED_BYTES_MAX: usize = 128 << 20;
/// Bodies that entropy tables are made from.
const TABLE_BODIES: usize = 24;
/// zstd's trainer is given what was chosen in pieces of this size.
const TABLE_PIECE_BYTES: usize = 4 << 10;
/// Bodies that dictionaries are judged by.
const JUDGES_MAX: usize = 48;

/// The offsets that the trainer puts before the content: 1, 4 and 8.
const FIRST_OFFSETS: &[u8] = &[1, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0];

/// Bodies to learn from, and bodies to judge by.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    text: Vec<u8>,
    learned: Vec<Body>,
    judges: Vec<Body>,
}

#[derive(Debug)]
struct Body {
    range: Range<usize>,
    weight: u32,
}

/// A part of a body, and how much it was worth when it was weighed; the greatest is the best.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Window {
    worth: u64,
    // Of equal ones the first, so that the same samples make the same dictionary.
    body: Reverse<usize>,
    from: Reverse<usize>,
    to: usize,
}

impl Samples {
    /// Adds the JSON text of a body that stands for so many events, to learn from.
    pub(crate) fn learn(&mut self, json: &[u8], weight: u32) {
        let body = self.add(json, weight);
        self.learned.push(body);
    }

    /// The same, to judge by.
    pub(crate) fn put_aside(&mut self, json: &[u8], weight: u32) {
        let body = self.add(json, weight);
        self.judges.push(body);
    }

    fn add(&mut self, json: &[u8], weight: u32) -> Body {
        let from = self.text.len();
        self.text.extend_from_slice(json);
        Body {
            range: from..self.text.len(),
            weight,
        }
    }

    /// Returns the size of all bodies.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Returns the dictionary of at most `bytes_max` bytes with which bodies become smallest;
    /// `None` if they have too little in common.
    pub(crate) fn train(&self, bytes_max: usize) -> Option<Vec<u8>> {
        let mut judges: Vec<&Body> = self.judges.iter().collect();
        // Those that stand for most events are always among them.
        judges.sort_by_key(|body| Reverse(body.weight));
        judges.truncate(JUDGES_MAX);
        let without = self.packed_bytes(&judges, None)?;
        let with = |dictionary: Vec<u8>| {
            let packed = self.packed_bytes(&judges, Some(&dictionary))?;
            (packed < without).then_some((packed, dictionary))
        };
        let worth = self.worth();
        let chosen = WINDOWS.map(|window| self.choose(&worth, window, bytes_max));
        let best = chosen.into_iter().filter_map(with);
        let (packed, best) = best.min_by_key(|(packed, _)| *packed)?;
        match self.with_tables(&best, bytes_max).and_then(with) {
            Some((smaller, dictionary)) if smaller <= packed => Some(dictionary),
            _ => Some(best),
        }
    }

    /// Puts entropy tables before the content of a dictionary.
    ///
    /// A dictionary is a magic number, an id, the tables, three offsets and the content (RFC 8878,
    /// section 5). zstd's trainer writes tables that suit the content it has chosen itself; to make
    /// that much the same, it is shown this content among the bodies.
    fn with_tables(&self, content: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let step = (self.learned.len() / TABLE_BODIES).max(1);
        let shown = |from: usize| {
            let bodies = self.learned.iter().skip(from).step_by(step);
            bodies.map(|body| &self.text[body.range.clone()])
        };
        let mut samples: Vec<&[u8]> = shown(0).take(TABLE_BODIES).collect();
        samples.extend(content.chunks(TABLE_PIECE_BYTES));
        // The trainer learns from the first three quarters and judges by the rest.
        samples.extend(shown(step / 2).take(samples.len() / 3));
        let trained = zstd::dict::from_samples(&samples, content.len().max(TABLE_PIECE_BYTES));
        let mut dictionary = trained.ok()?;
        let offsets = memchr::memmem::find(&dictionary, FIRST_OFFSETS)?;
        dictionary.truncate(offsets + FIRST_OFFSETS.len());
        let room = bytes_max.saturating_sub(dictionary.len());
        // What matters most is at the end.
        dictionary.extend_from_slice(&content[content.len().saturating_sub(room)..]);
        Some(dictionary)
    }

    /// Counts for each piece the events that repeat it: all but those of one body, the heaviest.
    /// An event of the lightest body is one.
    fn worth(&self) -> Vec<u32> {
        let mut worth = vec![0_u32; 1 << SLOT_BITS];
        let mut heaviest = vec![0_u32; 1 << SLOT_BITS];
        let mut counted_in = vec![0_u32; 1 << SLOT_BITS];
        for (number, body) in (1..).zip(&self.learned) {
            for (_, slot) in self.pieces(&body.range) {
                if std::mem::replace(&mut counted_in[slot], number) != number {
                    worth[slot] = worth[slot].saturating_add(body.weight);
                    heaviest[slot] = heaviest[slot].max(body.weight);
                }
            }
        }
        let lightest = self.learned.iter().map(|body| body.weight).min();
        let lightest = lightest.unwrap_or(1).max(1);
        for (worth, heaviest) in worth.iter_mut().zip(heaviest) {
            *worth = worth.saturating_sub(heaviest) / lightest;
        }
        worth
    }

    /// Takes the best windows until the room is full.
    fn choose(&self, worth: &[u32], window: usize, bytes_max: usize) -> Vec<u8> {
        let mut worth = worth.to_vec();
        let mut windows: BinaryHeap<Window> = self
            .learned
            .iter()
            .enumerate()
            .flat_map(|(number, body)| {
                let starts = body.range.clone().step_by(window / 2);
                starts.map(move |from| (number, from..body.range.end.min(from + window)))
            })
            .map(|(number, range)| self.weigh(&worth, number, range))
            .collect();
        let mut chosen: Vec<(usize, Range<usize>)> = Vec::new();
        let (mut len, mut weighed) = (0, 0);
        while let Some(best) = windows.pop() {
            if best.worth == 0 || weighed > WEIGHED_BYTES_MAX {
                break;
            }
            weighed += best.to - best.from.0;
            // What was chosen before may have taken most of it.
            let Some(range) = self.without_known_ends(&worth, best.from.0..best.to) else {
                continue;
            };
            let now = self.weigh(&worth, best.body.0, range);
            if now.worth == 0 {
                continue;
            }
            if windows.peek().is_some_and(|next| now < *next) {
                windows.push(now);
                continue;
            }
            let range = now.from.0..now.to.min(now.from.0 + (bytes_max - len));
            for (_, slot) in self.pieces(&range) {
                worth[slot] = 0;
            }
            len += range.len();
            chosen.push((now.body.0, range));
            if bytes_max - len < LEFT_BYTES_MIN {
                break;
            }
        }
        self.join(chosen)
    }

    fn weigh(&self, worth: &[u32], body: usize, range: Range<usize>) -> Window {
        let pieces = self.pieces(&range);
        let (count, sum) = pieces.fold((0, 0_u64), |(count, sum), (_, slot)| {
            (count + 1, sum + u64::from(worth[slot]))
        });
        let len = range.len() as u64;
        Window {
            worth: match sum * REPEATED_PART < count {
                true => 0,
                false => sum * REFERENCE_BYTES / (len + REFERENCE_BYTES),
            },
            body: Reverse(body),
            from: Reverse(range.start),
            to: range.end,
        }
    }

    /// Cuts off at both ends what is worth nothing any more; `None` if little is left.
    fn without_known_ends(&self, worth: &[u32], range: Range<usize>) -> Option<Range<usize>> {
        let is_new = |(_, slot): &(usize, usize)| worth[*slot] > 0;
        let (first, last) = (
            self.pieces(&range).find(is_new)?.0,
            self.pieces(&range).rfind(is_new)?.0 + PIECE_BYTES,
        );
        // Before the first piece and after the last there may be more that is new.
        let from = self.pieces(&range).take_while(|(at, _)| *at < first).last();
        let to = self.pieces(&range).find(|(at, _)| *at >= last);
        let from = from
            .map_or(range.start, |(at, _)| at + PIECE_BYTES)
            .min(first);
        let to = to.map_or(range.end, |(at, _)| at);
        (to - from >= LEFT_BYTES_MIN).then_some(from..to)
    }

    /// Puts parts of one body together again; those chosen first come last, where zstd refers to
    /// them in the fewest bits.
    fn join(&self, mut chosen: Vec<(usize, Range<usize>)>) -> Vec<u8> {
        let mut rank = vec![usize::MAX; self.learned.len()];
        for (number, (body, _)) in chosen.iter().enumerate() {
            rank[*body] = rank[*body].min(number);
        }
        chosen.sort_by_key(|(body, range)| (Reverse(rank[*body]), range.start));
        let mut joined = Vec::new();
        let mut before = 0..0;
        for (_, range) in chosen {
            let from = match before.contains(&range.start) {
                true => before.end,
                false => range.start,
            };
            joined.extend_from_slice(self.text.get(from..range.end).unwrap_or_default());
            before = range;
        }
        joined
    }

    /// The pieces of a part of the text that count: where they are, and their place in the table.
    fn pieces(&self, range: &Range<usize>) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        let from = range.start;
        let pieces = self.text[range.clone()].windows(PIECE_BYTES).enumerate();
        pieces.filter_map(move |(at, piece)| {
            let number = u64::from_le_bytes(piece.try_into().unwrap_or_default());
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let counts = hash << SLOT_BITS >> (u64::BITS - SAMPLED_BITS) == 0;
            counts.then_some((from + at, (hash >> (u64::BITS - SLOT_BITS)) as usize))
        })
    }

    /// Returns the size of bodies when they are packed, by how many events they stand for; `None`
    /// if zstd cannot use the dictionary.
    fn packed_bytes(&self, bodies: &[&Body], dictionary: Option<&[u8]>) -> Option<u64> {
        let tables = match dictionary {
            Some(bytes) => Some(CDict::try_create(bytes, LEVEL)?),
            None => None,
        };
        let mut context = match &tables {
            Some(tables) => attached(tables)?,
            None => CCtx::try_create()?,
        };
        let mut sum = 0_u64;
        for body in bodies {
            let json = &self.text[body.range.clone()];
            let mut packed = Vec::with_capacity(compress_bound(json.len()));
            let len = match &tables {
                Some(_) => context.compress2(&mut packed, json),
                None => context.compress(&mut packed, json, LEVEL),
            };
            sum += len.ok()? as u64 * u64::from(body.weight);
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use zstd::zstd_safe::{DCtx, DDict};

    use super::*;

    const BYTES_MAX: usize = 16 << 10;

    /// A body of about `frames` times 60 bytes; frames with the same number are alike.
    fn body(id: u32, frames: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let mut body = format!(
            "{{\"event_id\":\"{:032x}\"",
            u128::from(id) * 0x9e37_79b9_7f4a
        );
        for frame in frames {
            let hash = frame.wrapping_mul(2_654_435_761);
            body += &format!(
                ",{{\"function\":\"call_{hash:x}\",\"line\":{frame},\"module\":\"m{:x}\"}}",
                !hash
            );
        }
        body.into_bytes()
    }

    fn packed(dictionary: &[u8], body: &[u8]) -> usize {
        let mut packed = Vec::with_capacity(compress_bound(body.len()));
        let tables = CDict::create(dictionary, LEVEL);
        let len = attached(&tables).unwrap().compress2(&mut packed, body);
        let mut unpacked = Vec::with_capacity(body.len());
        let dictionary = DDict::create(dictionary);
        DCtx::create()
            .decompress_using_ddict(&mut unpacked, &packed, &dictionary)
            .unwrap();
        assert_eq!(unpacked, body);
        len.unwrap()
    }

    /// Two of three are learned, as in the store.
    fn samples(bodies: impl IntoIterator<Item = (Vec<u8>, u32)>) -> Samples {
        let mut samples = Samples::default();
        for (number, (body, weight)) in bodies.into_iter().enumerate() {
            match number % 3 {
                2 => samples.put_aside(&body, weight),
                _ => samples.learn(&body, weight),
            }
        }
        samples
    }

    /// Bytes without any order: xorshift, George Marsaglia, 2003.
    fn noise(odd: &mut u64, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| {
                *odd ^= *odd << 13;
                *odd ^= *odd >> 7;
                *odd ^= *odd << 17;
                odd.to_le_bytes()[0]
            })
            .collect()
    }

    #[test]
    fn a_storm_of_one_body_is_packed_as_one_reference() {
        let dictionary = samples((0..40).map(|id| (body(id, 0..100), 1)));
        let dictionary = dictionary.train(BYTES_MAX).unwrap();
        let next = body(77, 0..100);
        assert!(dictionary.len() < 2 * next.len(), "{}", dictionary.len());
        assert!(
            packed(&dictionary, &next) < 80,
            "{}",
            packed(&dictionary, &next)
        );
    }

    #[test]
    fn what_events_of_many_issues_share_is_kept() {
        let dictionary = samples((0..60).map(|issue| {
            let own = 1000 + issue * 40..1020 + issue * 40;
            (body(issue, (0..100).chain(own)), 1)
        }));
        let dictionary = dictionary.train(BYTES_MAX).unwrap();
        let next = body(99, 0..100);
        assert!(
            packed(&dictionary, &next) < 80,
            "{}",
            packed(&dictionary, &next)
        );
        // What each has of its own is packed with tables (RFC 8878, section 5).
        assert!(dictionary.starts_with(&[0x37, 0xa4, 0x30, 0xec]));
    }

    #[test]
    fn the_issue_with_most_events_comes_first() {
        let dictionary = samples((0..600).map(|number| {
            let (issue, storm) = (number / 3, number / 3 == 90);
            let frames = issue * 100..(issue + 1) * 100;
            (body(number, frames), if storm { 10_000 } else { 1 })
        }));
        let dictionary = dictionary.train(BYTES_MAX).unwrap();
        assert!(dictionary.len() <= BYTES_MAX);
        let (storm, other) = (body(999, 9000..9100), body(998, 3000..3100));
        assert!(
            packed(&dictionary, &storm) < 80,
            "{}",
            packed(&dictionary, &storm)
        );
        assert!(packed(&dictionary, &other) > 80);
    }

    #[test]
    fn what_one_event_has_alone_takes_no_room() {
        let mut odd = 0x9e37_79b9_7f4a_7c15;
        // Its noise makes it heavy, and no other event will have it.
        let dictionary = samples((0..30).map(|id| {
            let mut body = body(id, 0..100);
            body.extend(noise(&mut odd, 20_000));
            (body, 1 + 100 * u32::from(id < 3))
        }));
        let dictionary = dictionary.train(64 << 10).unwrap();
        assert!(dictionary.len() < 30_000, "{}", dictionary.len());
        assert!(packed(&dictionary, &body(77, 0..100)) < 90);
    }

    #[test]
    fn bodies_that_have_nothing_in_common_give_no_dictionary() {
        assert_eq!(Samples::default().train(BYTES_MAX), None);
        assert!(samples([(b"{}".to_vec(), 1)]).train(BYTES_MAX).is_none());
        let mut odd = 0x9e37_79b9_7f4a_7c15;
        // As much as a training takes.
        let samples = samples((0..300).map(|_| (noise(&mut odd, 27_000), 1)));
        assert!(samples.train(128 << 10).is_none());
    }

    #[test]
    fn the_same_samples_make_the_same_dictionary() {
        let samples = samples((0..50).map(|id| {
            let frames = (id % 7) * 30..(id % 7) * 30 + 60;
            (body(id, frames), 1 + id)
        }));
        let dictionary = samples.train(BYTES_MAX);
        assert!(dictionary.is_some());
        assert_eq!(dictionary, samples.train(BYTES_MAX));
    }
}
