//! How this node is doing: in sync or not, since when, and if not, why not.
//!
//! What passes find out is over when they are; so a little of it is kept in one small file ([`kept`]), which whoever runs
//! passes writes as it goes ([`keeper`]): when they were, how each device fared with each peer, and the databases that are
//! worst off. It does not grow with databases. All else is looked at when somebody asks ([`gather`]): the ledgers, the
//! mounts, the quarantine, the processes, so that the answer is the same whether an agent runs or not, and no old file is
//! taken for the present. From these [`facts`] it follows what needs a person ([`alarm`]), by rules that touch nothing.
//!
//! None of this may make a pass worse: what cannot be written or read is told once and passed by.

pub mod alarm;
pub mod facts;
pub mod gather;
pub mod keeper;
pub mod kept;
pub mod process;
mod round;

pub use facts::Report;
pub use gather::{Depth, Gatherer, gather};
pub use keeper::{Keeper, Watch};
