//! Values in numbered places: a number stays good until its value is taken out, and places are
//! used again in a fixed order. Memory grows to the most values ever held at once.

use std::ops::{Index, IndexMut};

/// See the module.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    empty: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), empty: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.empty.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.empty.pop() {
            self.places[number as usize] = Some(value);
            return number;
        }
        self.places.push(Some(value));
        self.places.len() as u32 - 1
    }

    pub(crate) fn remove(&mut self, number: u32) -> T {
        let value = self.places[number as usize].take();
        self.empty.push(number);
        value.expect("a value is taken out once")
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.places.get(number as usize)?.as_ref()
    }

    /// Numbers of all values, smallest first.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        let places = self.places.iter().zip(0u32..);
        places.filter_map(|(place, number)| place.as_ref().map(|_| number))
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        self.places[number as usize].as_ref().expect("the number of a live value")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        self.places[number as usize].as_mut().expect("the number of a live value")
    }
}
