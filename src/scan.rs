//! The databases of all our drives in turn, less what a filter leaves out.
