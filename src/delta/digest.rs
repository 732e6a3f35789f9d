//! What stands for a window, and for the whole file: BLAKE3, which is a tree, so that the digest of the file follows from
//! those of its windows in whatever order they were read, on whichever thread, and however often one was read again.

use blake3::Hasher;
use blake3::hazmat::{self, HasherExt, Mode};

use super::Window;

/// Stands for the content of one window, at its place: the first half of its node in BLAKE3's tree over the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowDigest(pub [u8; 16]);

impl WindowDigest {
    /// Of a window's bytes, of which there must be one at least.
    pub fn of(window: Window, bytes: &[u8]) -> WindowDigest {
        WindowNode::of(window, bytes).digest()
    }
}

/// A window's node in BLAKE3's tree over the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowNode {
    node: [u8; 32],
    /// What the digest of the file is if it has no other window.
    alone: [u8; 32],
}

impl WindowNode {
    /// Of a window's bytes, of which there must be one at least.
    pub fn of(window: Window, bytes: &[u8]) -> WindowNode {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(window.offset());
        hasher.update(bytes);
        let alone = if window.offset() == 0 { *hasher.finalize().as_bytes() } else { [0; 32] };
        WindowNode { node: hasher.finalize_non_root(), alone }
    }

    /// Of a window of which nothing is known: equal to none.
    pub fn unknown() -> WindowNode {
        WindowNode { node: [0; 32], alone: [0; 32] }
    }

    /// What is said of it to a peer.
    pub fn digest(&self) -> WindowDigest {
        let mut start = [0; 16];
        start.copy_from_slice(&self.node[..16]);
        WindowDigest(start)
    }
}

/// The nodes of a file's windows, as far as they are known: 32 bytes for each of at most
/// [`WINDOWS_LIMIT`](super::WINDOWS_LIMIT).
#[derive(Debug, Clone, Default)]
pub struct WindowTree {
    nodes: Vec<[u8; 32]>,
    alone: [u8; 32],
}

impl WindowTree {
    /// How many windows from the first are known.
    pub fn len(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// None is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Takes a window in: the next one, or one that is known already and was read again. False, and nothing done, if it
    /// is neither.
    pub fn set(&mut self, number: u32, window: WindowNode) -> bool {
        if number > self.len() {
            return false;
        }
        if number == 0 {
            self.alone = window.alone;
        }
        match self.nodes.get_mut(number as usize) {
            Some(node) => *node = window.node,
            None => self.nodes.push(window.node),
        }
        true
    }

    /// Is the window known, and this its content?
    pub fn has(&self, number: u32, window: &WindowNode) -> bool {
        self.nodes.get(number as usize) == Some(&window.node)
    }

    /// Forgets all windows from this one on.
    pub fn truncate(&mut self, count: u32) {
        self.nodes.truncate(count as usize);
    }

    /// The digest of the file that has just these windows: BLAKE3 of all its bytes.
    pub fn finish(&self) -> [u8; 32] {
        match self.nodes.as_slice() {
            [] => *blake3::hash(&[]).as_bytes(),
            [_] => self.alone,
            nodes => {
                let (left, right) = nodes.split_at(left_half(nodes.len()));
                let root = hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
                *root.as_bytes()
            }
        }
    }
}

/// The node above some windows.
fn subtree(nodes: &[[u8; 32]]) -> [u8; 32] {
    match nodes {
        [node] => *node,
        nodes => {
            let (left, right) = nodes.split_at(left_half(nodes.len()));
            hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// How many of several nodes stand on the left: the largest power of two that leaves one.
fn left_half(count: usize) -> usize {
    count.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::super::{Geometry, USUAL_WINDOW_BYTES};
    use super::*;

    const WINDOW: usize = USUAL_WINDOW_BYTES as usize;

    fn geometry(bytes: usize) -> Geometry {
        Geometry::new(bytes as u64, 512, USUAL_WINDOW_BYTES).expect("sound")
    }

    fn node(geometry: Geometry, file: &[u8], number: u32) -> WindowNode {
        let window = geometry.window(number).expect("a window");
        WindowNode::of(window, &file[window.offset() as usize..][..window.bytes()])
    }

    #[test]
    fn a_tree_has_the_digest_of_the_file_whatever_its_length() {
        let file: Vec<u8> = (0..17 * WINDOW / 8).flat_map(|n| (n as u64).to_le_bytes()).collect();
        for windows in 0..=17 {
            for spare in [0, 512, 1024, WINDOW / 2 + 512] {
                let bytes = (windows * WINDOW + spare).min(file.len());
                let (mut tree, geometry) = (WindowTree::default(), geometry(bytes));
                for number in 0..geometry.window_count() {
                    assert!(tree.set(number, node(geometry, &file[..bytes], number)));
                }
                assert_eq!(tree.finish(), *blake3::hash(&file[..bytes]).as_bytes(), "{bytes} bytes");
            }
        }
    }

    #[test]
    fn a_window_read_again_counts_in_place_of_the_first_reading() {
        let (old, geometry) = (vec![1; 3 * WINDOW], geometry(3 * WINDOW));
        let mut new = old.clone();
        new[WINDOW + 7] = 2;
        let mut tree = WindowTree::default();
        assert!(!tree.set(1, node(geometry, &old, 1)), "there is no window before it");
        (0..3).for_each(|number| assert!(tree.set(number, node(geometry, &old, number))));
        assert_eq!(tree.finish(), *blake3::hash(&old).as_bytes());
        assert!(!tree.has(1, &node(geometry, &new, 1)) && tree.has(2, &node(geometry, &new, 2)));
        assert!(tree.set(1, node(geometry, &new, 1)));
        assert_eq!(tree.finish(), *blake3::hash(&new).as_bytes());
        assert!(!tree.has(3, &node(geometry, &new, 2)));
        tree.truncate(2);
        assert_eq!(tree.finish(), *blake3::hash(&new[..2 * WINDOW]).as_bytes());
    }

    #[test]
    fn the_same_bytes_elsewhere_are_another_window() {
        let (file, geometry) = (vec![1; 2 * WINDOW], geometry(2 * WINDOW));
        assert_ne!(node(geometry, &file, 0).digest(), node(geometry, &file, 1).digest());
    }
}
