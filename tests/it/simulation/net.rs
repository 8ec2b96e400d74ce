//! Who reaches whom. A message that is cut off is sent again when the way is open, as TCP does,
//! unless the connection was given up in between.

/// The two who are no server: the proxy, and clients that go past it.
pub(super) const PROXY: usize = 0;
pub(super) const CLIENTS: usize = 1;

/// A server's place in the net.
pub(super) const fn place(server: usize) -> usize {
    server + 2
}

/// What becomes of a message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    /// Nothing comes through, and nobody is told.
    Silent,
    /// Refused, as by a firewall that answers.
    Refused,
}

#[derive(Debug)]
pub(super) struct Net {
    ways: Vec<Vec<Way>>,
}

impl Net {
    pub(super) fn new(servers: usize) -> Self {
        Self { ways: vec![vec![Way::Open; servers + 2]; servers + 2] }
    }

    pub(super) fn way(&self, from: usize, to: usize) -> Way {
        self.ways[from][to]
    }

    pub(super) fn set(&mut self, from: usize, to: usize, way: Way) {
        self.ways[from][to] = way;
    }

    pub(super) fn heal(&mut self) {
        self.ways.iter_mut().flatten().for_each(|way| *way = Way::Open);
    }

    /// Whether both directions are open.
    pub(super) fn open(&self, one: usize, other: usize) -> bool {
        self.way(one, other) == Way::Open && self.way(other, one) == Way::Open
    }
}
