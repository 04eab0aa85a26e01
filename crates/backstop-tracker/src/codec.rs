//! How the body of an event is packed: zstd, with a dictionary of its project where there is one.
//!
//! Events of one program repeat each other: with a dictionary a body takes half the time and a
//! quarter of the size, and one of a storm some fifty bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use backstop_protocol::{Event, EventId};
use self_cell::self_cell;
use zstd::zstd_safe::{CCtx, CDict, CParameter, DCtx, DDict, DictAttachPref, compress_bound};

use crate::model::ProjectId;

/// With a dictionary level 3 saves a fifth to a quarter of the space and costs a quarter more time.
pub(crate) const LEVEL: i32 = 1;

/// A thread keeps so many contexts with a dictionary, those used last, of 0.1 to 0.3 MB each; after a
/// large body, whose context has 0.6 MB and which hundreds of threads may pack, only that one.
const ATTACHED_MAX: usize = 4;

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
    unpacking: OnceLock<Option<DDict<'static>>>,
}

self_cell! {
    /// A context that looks into a dictionary's own tables.
    ///
    /// Left to itself zstd copies them for each body above 8 kB, which can cost as much as packing it.
    struct Attached {
        owner: Arc<Dictionary>,
        #[not_covariant]
        dependent: CCtx,
    }
}

/// What a thread needs for packing.
struct Packing {
    plain: Option<CCtx<'static>>,
    /// The one used last is the first.
    attached: Vec<Attached>,
    json: Vec<u8>,
    bytes: Vec<u8>,
}

thread_local! {
    // A context is half a megabyte that would be cleared for every event.
    static PACKING: RefCell<Packing> = const {
        RefCell::new(Packing {
            plain: None,
            attached: Vec::new(),
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
        PACKING.with_borrow_mut(|kept| kept.pack(event, dictionary.as_ref()))
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
    fn pack(&mut self, event: &Event, dictionary: Option<&Arc<Dictionary>>) -> Packed {
        self.json.clear();
        event.encode_into(&mut self.json);
        let size = self.json.len();
        self.bytes.clear();
        self.bytes.reserve(compress_bound(size));
        let dictionary = dictionary.filter(|dictionary| self.attach(dictionary));
        let (json, bytes) = (&self.json, &mut self.bytes);
        match (dictionary, self.attached.first_mut()) {
            (Some(_), Some(attached)) => {
                attached.with_dependent_mut(|_, context| context.compress2(bytes, json))
            }
            _ => {
                let context = self.plain.get_or_insert_with(CCtx::create);
                context.compress(bytes, json, LEVEL)
            }
        }
        .expect("the buffer has the size that zstd asks for");
        let packed = Packed {
            dictionary: dictionary.map(|dictionary| dictionary.id),
            size,
            bytes: self.bytes.as_slice().to_vec(),
        };
        // A large event is rare; its buffers are not kept for every thread.
        if size > BUFFER_BYTES_KEPT {
            self.attached.truncate(1);
        }
        self.json.shrink_to(BUFFER_BYTES_KEPT);
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        packed
    }

    /// Puts the context of a dictionary first; returns false if zstd cannot make one.
    fn attach(&mut self, dictionary: &Arc<Dictionary>) -> bool {
        let place = self
            .attached
            .iter()
            .position(|attached| Arc::ptr_eq(attached.borrow_owner(), dictionary));
        if let Some(place) = place {
            self.attached[..=place].rotate_right(1);
            return true;
        }
        let Ok(attached) = Attached::try_new(Arc::clone(dictionary), |dictionary| {
            let tables = dictionary.packing().ok_or(())?;
            attached(tables).ok_or(())
        }) else {
            return false;
        };
        self.attached.truncate(ATTACHED_MAX - 1);
        self.attached.insert(0, attached);
        true
    }
}

/// Makes a context that looks into a dictionary's own tables; `None` if there is no memory.
pub(crate) fn attached<'a>(tables: &'a CDict<'static>) -> Option<CCtx<'a>> {
    let mut context = CCtx::try_create()?;
    let attach = CParameter::ForceAttachDict(DictAttachPref::ForceAttach);
    context.set_parameter(attach).ok()?;
    context.ref_cdict(tables).ok()?;
    Some(context)
}

impl Dictionary {
    /// Takes a trained dictionary; `None` if zstd cannot read it.
    pub(crate) fn new(id: u32, bytes: Vec<u8>) -> Option<Dictionary> {
        let dictionary = Dictionary {
            id,
            bytes,
            packing: OnceLock::new(),
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

    /// What packs; made with the first body.
    fn packing(&self) -> Option<&CDict<'static>> {
        let packing = self
            .packing
            .get_or_init(|| CDict::try_create(&self.bytes, LEVEL));
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
    fn more_projects_than_contexts_take_turns_with_their_dictionaries() {
        let codec = Codec::default();
        let projects = ATTACHED_MAX as u32 + 2;
        let event = |project: u32| {
            let line =
                format!("the {project} of a great many words, none of them twice").repeat(400);
            let wire = format!(r#"{{"event_id":"{project:032x}","message":"{line}"}}"#);
            Event::decode(wire.as_bytes()).unwrap()
        };
        let dictionaries: Vec<_> = (0..projects)
            .map(|project| Arc::new(Dictionary::new(project, event(project).encode()).unwrap()))
            .collect();
        for (number, dictionary) in dictionaries.iter().enumerate() {
            codec.set_dictionary(ProjectId(number as u64), Arc::clone(dictionary));
        }
        // Each of them is also found where it is not the one that was used last.
        let turns = [0, 1, 0, 2, 1, 0, 3, 2, 0, 1, 3].into_iter();
        for project in turns.chain((0..3 * projects).map(|number| number * 5 % projects)) {
            let packed = codec.pack(ProjectId(project.into()), &event(project));
            assert_eq!(packed.dictionary, Some(project));
            assert!(packed.bytes.len() < 60, "{}", packed.bytes.len());
            let dictionary = &dictionaries[project as usize];
            assert_eq!(
                Codec::unpack(&packed.bytes, Some(dictionary), packed.size),
                Some(event(project).encode())
            );
            let another = &dictionaries[(project as usize + 1) % dictionaries.len()];
            assert_ne!(
                Codec::unpack(&packed.bytes, Some(another), packed.size),
                Some(event(project).encode())
            );
        }
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
