//! Who is let in as whom, and what the tree lets them see: wrong keys by the letter, times by the
//! millisecond, places by every pair of a random tree.

mod identity {
    mod keys;
    mod places;
    mod tree;
}
