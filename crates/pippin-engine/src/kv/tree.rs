use std::collections::{BTreeSet, HashMap};

use super::{PAGE_SIZE, Prefix};

pub(super) type NodeId = usize;

/// Where every path begins: a node of no tokens that is always there.
pub(super) const ROOT: NodeId = 0;

/// A page's worth of tokens after those of its parent, or fewer at the end of a sequence.
#[derive(Debug, Default)]
pub(super) struct Node {
    parent: NodeId,
    pub(super) tokens: Box<[u32]>,
    children: HashMap<Box<[u32]>, NodeId>,
    /// How many of the children have less than a page of tokens.
    tails: usize,
    /// For each cache group, the page of the tokens' keys and values, unless it has been given up.
    pub(super) pages: Vec<Option<u32>>,
    /// When each of them was last of use.
    page_used: Vec<u64>,
    /// The slot with a copy of the state after the tokens.
    pub(super) snapshot: Option<usize>,
    used: u64,
}

/// What sequences have left behind, by content: a radix tree whose edges are pages of tokens.
///
/// To look a sequence up takes one step for each of its pages, however many sequences are here. Tokens are compared, not
/// only their hashes.
///
/// The tree is only the structure: it says what is the least recently used, and its owner what is given up.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    vacant: Vec<NodeId>,
    /// Counts uses, so that the order among them is total.
    clock: u64,
    /// Nodes without children, least recently used first.
    leaves: BTreeSet<(u64, NodeId)>,
    /// For each cache group, nodes with a page of it.
    holders: Vec<BTreeSet<(u64, NodeId)>>,
    /// Nodes with a snapshot.
    snapshots: BTreeSet<(u64, NodeId)>,
}

impl Tree {
    /// An empty tree for so many cache groups.
    pub(super) fn new(groups: usize) -> Self {
        Self {
            nodes: vec![Node::default()],
            vacant: Vec::new(),
            clock: 0,
            leaves: BTreeSet::new(),
            holders: vec![BTreeSet::new(); groups],
            snapshots: BTreeSet::new(),
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Where the paths of a namespace begin, if it has any.
    pub(super) fn root(&self, namespace: &[u32]) -> Option<NodeId> {
        if namespace.is_empty() { Some(ROOT) } else { self.child(ROOT, namespace) }
    }

    /// Where the paths of a namespace begin. What is not added to is to be pruned.
    pub(super) fn root_or_add(&mut self, namespace: &[u32]) -> NodeId {
        self.root(namespace).unwrap_or_else(|| self.add(ROOT, namespace))
    }

    /// The child with exactly these tokens.
    pub(super) fn child(&self, parent: NodeId, tokens: &[u32]) -> Option<NodeId> {
        self.nodes[parent].children.get(tokens).copied()
    }

    /// The children of less than a page with which `rest` begins, longest first.
    pub(super) fn tails<'a>(
        &'a self,
        parent: NodeId,
        rest: &'a [u32],
    ) -> impl Iterator<Item = NodeId> + use<'a> {
        let longest = if self.nodes[parent].tails > 0 { rest.len().min(PAGE_SIZE - 1) } else { 0 };
        (1..=longest).rev().filter_map(move |length| self.child(parent, &rest[..length]))
    }

    /// The nodes of full pages with which a sequence begins.
    pub(super) fn path(&self, Prefix { namespace, tokens }: Prefix<'_>) -> Vec<NodeId> {
        let Some(mut at) = self.root(namespace) else { return Vec::new() };
        tokens
            .chunks_exact(PAGE_SIZE)
            .map_while(|chunk| {
                at = self.child(at, chunk)?;
                Some(at)
            })
            .collect()
    }

    /// Adds a child that is not there yet, and has no pages yet.
    pub(super) fn add(&mut self, parent: NodeId, tokens: &[u32]) -> NodeId {
        let groups = self.holders.len();
        let node = Node {
            parent,
            tokens: tokens.into(),
            pages: vec![None; groups],
            page_used: vec![0; groups],
            used: self.tick(),
            ..Node::default()
        };
        let id = match self.vacant.pop() {
            Some(id) => {
                self.nodes[id] = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.leaves.insert((self.clock, id));
        let above = &mut self.nodes[parent];
        self.leaves.remove(&(above.used, parent));
        above.tails += usize::from(tokens.len() < PAGE_SIZE);
        let replaced = above.children.insert(tokens.into(), id);
        debug_assert!(replaced.is_none(), "the child is there already");
        id
    }

    /// Removes a node without children, which is not the root. What it held is the caller's.
    pub(super) fn remove(&mut self, id: NodeId) -> Node {
        let node = std::mem::take(&mut self.nodes[id]);
        debug_assert!(id != ROOT && node.children.is_empty(), "node {id} has children");
        self.vacant.push(id);
        self.leaves.remove(&(node.used, id));
        self.snapshots.remove(&(node.used, id));
        for (holders, used) in self.holders.iter_mut().zip(&node.page_used) {
            holders.remove(&(*used, id));
        }
        let above = &mut self.nodes[node.parent];
        above.children.remove(&node.tokens);
        above.tails -= usize::from(node.tokens.len() < PAGE_SIZE);
        if above.children.is_empty() && node.parent != ROOT {
            self.leaves.insert((above.used, node.parent));
        }
        node
    }

    /// The parent of a node.
    pub(super) fn parent(&self, id: NodeId) -> NodeId {
        self.nodes[id].parent
    }

    /// Whether something follows a node.
    pub(super) fn has_children(&self, id: NodeId) -> bool {
        !self.nodes[id].children.is_empty()
    }

    /// Whether a node holds nothing and leads to nothing.
    pub(super) fn is_bare(&self, id: NodeId) -> bool {
        let node = &self.nodes[id];
        id != ROOT
            && node.children.is_empty()
            && node.snapshot.is_none()
            && node.pages.iter().all(Option::is_none)
    }

    /// A node, and with it its snapshot, is the most recently used.
    pub(super) fn touch(&mut self, id: NodeId) {
        let now = self.tick();
        let node = &mut self.nodes[id];
        let before = std::mem::replace(&mut node.used, now);
        if node.children.is_empty() && id != ROOT {
            self.leaves.remove(&(before, id));
            self.leaves.insert((now, id));
        }
        if node.snapshot.is_some() {
            self.snapshots.remove(&(before, id));
            self.snapshots.insert((now, id));
        }
    }

    /// A node's page is the most recently used of its cache group.
    pub(super) fn touch_page(&mut self, id: NodeId, group: usize) {
        let page = self.nodes[id].pages[group];
        self.set_page(id, group, page);
    }

    /// Changes a node's page of a cache group. Returns the one it had.
    pub(super) fn set_page(&mut self, id: NodeId, group: usize, page: Option<u32>) -> Option<u32> {
        let now = self.tick();
        let node = &mut self.nodes[id];
        self.holders[group].remove(&(node.page_used[group], id));
        if page.is_some() {
            node.page_used[group] = now;
            self.holders[group].insert((now, id));
        }
        std::mem::replace(&mut node.pages[group], page)
    }

    /// Changes a node's snapshot. Returns the one it had.
    pub(super) fn set_snapshot(&mut self, id: NodeId, snapshot: Option<usize>) -> Option<usize> {
        let node = &mut self.nodes[id];
        match snapshot {
            Some(_) => self.snapshots.insert((node.used, id)),
            None => self.snapshots.remove(&(node.used, id)),
        };
        std::mem::replace(&mut node.snapshot, snapshot)
    }

    /// The least recently used node without children.
    pub(super) fn oldest_leaf(&self) -> Option<NodeId> {
        self.leaves.first().map(|(_, id)| *id)
    }

    /// The number of nodes without children.
    pub(super) fn leaves(&self) -> usize {
        self.leaves.len()
    }

    /// The node with the least recently used page of a cache group.
    pub(super) fn oldest_page(&self, group: usize) -> Option<NodeId> {
        self.holders[group].first().map(|(_, id)| *id)
    }

    /// The number of pages of a cache group.
    pub(super) fn pages(&self, group: usize) -> usize {
        self.holders[group].len()
    }

    /// The node with the least recently used snapshot.
    pub(super) fn oldest_snapshot(&self) -> Option<NodeId> {
        self.snapshots.first().map(|(_, id)| *id)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
