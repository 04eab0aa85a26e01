//! How the body of an event is packed: zstd, with a dictionary of its project where there is one.
//!
//! Events of one program repeat each other: a trained dictionary halves the time and divides the
//! size by four, which no compression of a single event reaches.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use backstop_protocol::{Event, EventId};
use zstd::zstd_safe::{CCtx, CDict, DCtx, DDict, compress_bound};

use crate::model::ProjectId;

/// For a body without a dictionary, and a large one: level 3 saves another eighth of the space
/// and costs twice the time.
const LEVEL: i32 = 1;
/// With a dictionary a small body costs less at level 3 than at level 1, and is a tenth smaller:
/// zstd looks into the dictionary's own tables instead of copying them for each body.
const SMALL_LEVEL: i32 = 3;
/// As long as that is so; zstd copies the tables of level 3 for more than this.
const SMALL_BYTES_MAX: usize = 16 << 10;

/// A body is at most this long once unpacked; ingest refuses longer events before.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// The buffer that a thread keeps between events; it fits nearly all of them.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// Packs with the current dictionary of each project.
#[derive(Debug, Default)]
pub(crate) struct Codec {
    current: RwLock<HashMap<ProjectId, Arc<Dictionary>>>,
}

/// A packed body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) dictionary: Option<u32>,
    pub(crate) size: usize,
    pub(crate) bytes: Vec<u8>,
}

/// What the events of one project have in common.
pub(crate) struct Dictionary {
    id: u32,
    bytes: Vec<u8>,
    packing: OnceLock<Option<CDict<'static>>>,
    packing_small: OnceLock<Option<CDict<'static>>>,
    unpacking: OnceLock<Option<DDict<'static>>>,
}

/// What a thread needs for packing.
struct Packing {
    context: Option<CCtx<'static>>,
    json: Vec<u8>,
    bytes: Vec<u8>,
}

thread_local! {
    // A context is half a megabyte that would be cleared for every event.
    static PACKING: RefCell<Packing> = const {
        RefCell::new(Packing {
            context: None,
            json: Vec::new(),
            bytes: Vec::new(),
        })
    };
    static UNPACKING: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

impl Codec {
    /// Makes a dictionary the current one of a project.
    pub(crate) fn set_dictionary(&self, project: ProjectId, dictionary: Arc<Dictionary>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.insert(project, dictionary);
    }

    /// Drops the dictionary of a project that is not used any more.
    pub(crate) fn forget(&self, project: ProjectId) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.remove(&project);
    }

    /// Packs an event.
    pub(crate) fn pack(&self, project: ProjectId, event: &Event) -> Packed {
        let dictionary = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.get(&project).cloned()
        };
        PACKING.with_borrow_mut(|kept| kept.pack(event, dictionary.as_deref()))
    }

    /// Unpacks a body; `None` if it is damaged.
    pub(crate) fn unpack(
        bytes: &[u8],
        dictionary: Option<&Dictionary>,
        size: usize,
    ) -> Option<Vec<u8>> {
        if size > BODY_BYTES_MAX {
            return None;
        }
        let mut json = Vec::with_capacity(size);
        UNPACKING.with_borrow_mut(|context| {
            let context = context.get_or_insert_with(DCtx::create);
            match dictionary {
                Some(dictionary) => {
                    context.decompress_using_ddict(&mut json, bytes, dictionary.unpacking()?)
                }
                None => context.decompress(&mut json, bytes),
            }
            .ok()
        })?;
        (json.len() == size).then_some(json)
    }

    /// Returns the checksum of a packed body, which also ties it to its event.
    pub(crate) fn sum(id: EventId, bytes: &[u8]) -> u32 {
        let mut sum = libdeflater::Crc::new();
        sum.update(id.as_bytes());
        sum.update(bytes);
        sum.sum()
    }
}

impl Packing {
    /// Packs the event's JSON text.
    fn pack(&mut self, event: &Event, dictionary: Option<&Dictionary>) -> Packed {
        self.json.clear();
        event.encode_into(&mut self.json);
        let size = self.json.len();
        let prepared = dictionary.and_then(|dictionary| dictionary.packing(size));
        let context = self.context.get_or_insert_with(CCtx::create);
        self.bytes.clear();
        self.bytes.reserve(compress_bound(self.json.len()));
        match prepared {
            Some(packing) => context.compress_using_cdict(&mut self.bytes, &self.json, packing),
            None => context.compress(&mut self.bytes, &self.json, LEVEL),
        }
        .expect("the buffer has the size that zstd asks for");
        let packed = Packed {
            dictionary: prepared.and(dictionary).map(|dictionary| dictionary.id),
            size,
            bytes: self.bytes.as_slice().to_vec(),
        };
        // A large event is rare; its buffers are not kept for every thread.
        self.json.shrink_to(BUFFER_BYTES_KEPT);
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        packed
    }
}

impl Dictionary {
    /// Takes a trained dictionary; `None` if zstd cannot read it.
    pub(crate) fn new(id: u32, bytes: Vec<u8>) -> Option<Dictionary> {
        let dictionary = Dictionary {
            id,
            bytes,
            packing: OnceLock::new(),
            packing_small: OnceLock::new(),
            unpacking: OnceLock::new(),
        };
        dictionary.unpacking().is_some().then_some(dictionary)
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn sum(&self) -> u32 {
        let mut sum = flate2::Crc::new();
        sum.update(&self.bytes);
        sum.sum()
    }

    /// What packs a body of `size` bytes; made with the first of its kind.
    fn packing(&self, size: usize) -> Option<&CDict<'static>> {
        let (packing, level) = match size <= SMALL_BYTES_MAX {
            true => (&self.packing_small, SMALL_LEVEL),
            false => (&self.packing, LEVEL),
        };
        let packing = packing.get_or_init(|| CDict::try_create(&self.bytes, level));
        packing.as_ref()
    }

    fn unpacking(&self) -> Option<&DDict<'static>> {
        let unpacking = self
            .unpacking
            .get_or_init(|| DDict::try_create(&self.bytes));
        unpacking.as_ref()
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dictionary({}, {} bytes)", self.id, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: ProjectId = ProjectId(1);

    fn sample(number: u32) -> Event {
        let wire = format!(
            r#"{{"event_id":"{number:032x}","exception":{{"values":[{{"type":"ZeroDivisionError","value":"division by {}"}}]}}}}"#,
            number * 7919
        );
        Event::decode(wire.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_packed_comes_back_with_and_without_a_dictionary() {
        let samples: Vec<Vec<u8>> = (0..500).map(|number| sample(number).encode()).collect();
        let (codec, event) = (Codec::default(), sample(0));
        let plain = codec.pack(PROJECT, &event);
        assert_eq!(plain.dictionary, None);
        assert_eq!(
            Codec::unpack(&plain.bytes, None, plain.size).as_ref(),
            Some(&samples[0])
        );
        let bytes = zstd::dict::from_samples(&samples, 4096).unwrap();
        let dictionary = Arc::new(Dictionary::new(7, bytes).unwrap());
        codec.set_dictionary(PROJECT, Arc::clone(&dictionary));
        let packed = codec.pack(PROJECT, &event);
        assert_eq!(packed.dictionary, Some(7));
        assert!(packed.bytes.len() < plain.bytes.len());
        assert_eq!(
            Codec::unpack(&packed.bytes, Some(&dictionary), packed.size).as_ref(),
            Some(&samples[0])
        );
        assert_eq!(codec.pack(ProjectId(2), &event), plain);
    }

    #[test]
    fn a_damaged_body_is_refused() {
        let packed = Codec::default().pack(PROJECT, &sample(0));
        assert_eq!(Codec::unpack(&packed.bytes[1..], None, packed.size), None);
        assert_eq!(Codec::unpack(&packed.bytes, None, packed.size + 1), None);
        assert_eq!(Codec::unpack(&packed.bytes, None, packed.size - 1), None);
        assert_eq!(Codec::unpack(&packed.bytes, None, usize::MAX), None);
        let id = EventId::default();
        let mut other = packed.bytes.clone();
        other[9] ^= 1;
        assert_ne!(Codec::sum(id, &packed.bytes), Codec::sum(id, &other));
    }

    #[test]
    fn the_checksum_is_the_one_of_zip_over_id_and_body() {
        let id = EventId::from_bytes(std::array::from_fn(|place| place as u8));
        assert_eq!(Codec::sum(id, b"packed"), 0x8ca2_9465);
    }
}
