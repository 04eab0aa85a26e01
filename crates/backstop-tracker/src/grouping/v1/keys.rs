//! The hashes of an event and what each was made from.

use super::super::value::cut;
use super::super::{GroupHash, GroupKey, Ingredient, Part};
use super::VERSION;

/// What people are shown of one ingredient.
const VALUE_BYTES_MAX: usize = 300;

/// The name of an ingredient, for people, and its text; the same texts always give the same hash.
pub(super) type Named<'t> = (&'static str, &'t str);

/// The hashes of an event, in the order in which they were added.
#[derive(Default)]
pub(super) struct Keys {
    /// What a fingerprint adds to every hash.
    pub(super) salt: Vec<String>,
    /// Whether to write down what each hash was made from.
    pub(super) explains: bool,
    pub(super) keys: Vec<GroupKey>,
}

impl Keys {
    /// Adds the hash of some texts in a role.
    pub(super) fn add<'t>(
        &mut self,
        part: Part,
        find: bool,
        keep: bool,
        role: &str,
        texts: impl IntoIterator<Item = Named<'t>, IntoIter: Clone>,
    ) {
        let texts = texts.into_iter();
        let values = texts.clone().map(|(_, value)| value);
        let hash = GroupHash::of(VERSION, &self.salt, [role].into_iter().chain(values));
        self.add_hash(part, find, keep, hash, texts);
    }

    /// Adds a hash under which nameless functions meet each other and the named ones that keep
    /// it for them.
    pub(super) fn add_meeting(
        &mut self,
        part: Part,
        is_named: bool,
        role: &str,
        texts: &[Named<'_>],
    ) {
        let values = texts.iter().map(|(_, value)| *value);
        let of_named = GroupHash::of(VERSION, &self.salt, [role].into_iter().chain(values));
        let texts = texts.iter().copied();
        self.add_hash(part, !is_named, is_named, of_named, texts.clone());
        self.add_hash(part, true, !is_named, of_named.twin(), texts);
    }

    fn add_hash<'t>(
        &mut self,
        part: Part,
        find: bool,
        keep: bool,
        hash: GroupHash,
        texts: impl Iterator<Item = Named<'t>>,
    ) {
        if let Some(key) = self.keys.iter_mut().find(|key| key.hash == hash) {
            key.find |= find;
            key.keep |= keep;
            return;
        }
        let made_of = if self.explains {
            self.ingredients(texts)
        } else {
            Vec::new()
        };
        self.keys.push(GroupKey {
            version: VERSION,
            hash,
            part,
            find,
            keep,
            made_of,
        });
    }

    fn ingredients<'t>(&self, texts: impl Iterator<Item = Named<'t>>) -> Vec<Ingredient> {
        let mut made_of: Vec<Ingredient> = texts.filter_map(ingredient).collect();
        let salt = self.salt.iter();
        made_of.extend(salt.filter_map(|value| ingredient(("fingerprint", value))));
        made_of
    }
}

/// Words that only tell roles apart have no name, and people need not see what is empty.
fn ingredient((name, value): Named<'_>) -> Option<Ingredient> {
    let is_shown = !name.is_empty() && !value.is_empty();
    is_shown.then(|| Ingredient {
        name: name.into(),
        value: cut(value, VALUE_BYTES_MAX).into(),
    })
}
