//! Which models make way for another one.

/// A model as this decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// What it counts against the budget.
    pub(super) bytes: u64,
    /// When it was used last: a higher number is later.
    pub(super) used: u64,
    /// Whether it may be unloaded.
    pub(super) is_idle: bool,
}

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) models: usize,
}

/// How there is room for one more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// When these are unloaded, in this order. Often none need be.
    After(Vec<usize>),
    /// Not in memory, whatever is unloaded.
    NoBytes,
    /// There are too many that cannot be unloaded.
    NoPlace,
}

/// Finds room for a model of `needed` bytes beside these: idle ones go, the least recently used first, until it fits.
/// When it would not fit even then, none need go.
pub(super) fn make_room(slots: &[Slot], needed: u64, limits: Limits) -> Room {
    let sum = |slots: &mut dyn Iterator<Item = &Slot>| {
        slots.fold(0_u64, |sum, slot| sum.saturating_add(slot.bytes))
    };
    let held = sum(&mut slots.iter().filter(|slot| !slot.is_idle));
    if held.saturating_add(needed) > limits.bytes {
        return Room::NoBytes;
    }
    if slots.iter().filter(|slot| !slot.is_idle).count() >= limits.models {
        return Room::NoPlace;
    }
    let mut idle: Vec<usize> = (0..slots.len()).filter(|index| slots[*index].is_idle).collect();
    idle.sort_by_key(|index| slots[*index].used);
    let (mut used, mut models) = (sum(&mut slots.iter()), slots.len());
    let going = idle.into_iter().take_while(|index| {
        let is_full = used.saturating_add(needed) > limits.bytes || models >= limits.models;
        if is_full {
            used = used.saturating_sub(slots[*index].bytes);
            models -= 1;
        }
        is_full
    });
    Room::After(going.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(bytes: u64, used: u64, is_idle: bool) -> Slot {
        Slot { bytes, used, is_idle }
    }

    const LIMITS: Limits = Limits { bytes: 100, models: 3 };

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let slots = [slot(30, 5, true), slot(30, 1, true), slot(30, 3, true)];
        assert_eq!(make_room(&slots[..2], 40, LIMITS), Room::After(vec![]));
        assert_eq!(make_room(&slots, 10, LIMITS), Room::After(vec![1]));
        assert_eq!(make_room(&slots, 50, LIMITS), Room::After(vec![1, 2]));
        assert_eq!(make_room(&slots, 100, LIMITS), Room::After(vec![1, 2, 0]));
        assert_eq!(make_room(&slots, 101, LIMITS), Room::NoBytes);
    }

    #[test]
    fn what_is_in_use_stays() {
        let slots = [slot(30, 5, true), slot(30, 1, false), slot(30, 3, true)];
        assert_eq!(make_room(&slots, 30, LIMITS), Room::After(vec![2]));
        assert_eq!(make_room(&slots, 70, LIMITS), Room::After(vec![2, 0]));
        assert_eq!(make_room(&slots, 71, LIMITS), Room::NoBytes);
        let busy = [slot(1, 1, false); 3];
        assert_eq!(make_room(&busy, 1, LIMITS), Room::NoPlace);
    }

    proptest! {
        #[test]
        fn room_is_room(
            models in prop::collection::vec((0u64..50, any::<bool>()), 0..6),
            needed in 0u64..120,
            limit in 1usize..5,
        ) {
            let slots: Vec<Slot> = models
                .iter()
                .enumerate()
                .map(|(index, (bytes, is_idle))| slot(*bytes, (index as u64 * 7) % 11, *is_idle))
                .collect();
            let limits = Limits { bytes: 100, models: limit };
            let fits = |gone: &[usize]| {
                let left = || (0..slots.len()).filter(|index| !gone.contains(index)).map(|index| slots[index]);
                left().map(|slot| slot.bytes).sum::<u64>() + needed <= 100 && left().count() < limit
            };
            let mut idle: Vec<usize> = (0..slots.len()).filter(|index| slots[*index].is_idle).collect();
            idle.sort_by_key(|index| slots[*index].used);
            match make_room(&slots, needed, limits) {
                Room::After(gone) => {
                    prop_assert!(fits(&gone));
                    prop_assert_eq!(&gone, &idle[..gone.len()].to_vec());
                    // One fewer would not do.
                    prop_assert!(gone.is_empty() || !fits(&gone[..gone.len() - 1]));
                }
                _ => prop_assert!(!fits(&idle)),
            }
        }
    }
}
