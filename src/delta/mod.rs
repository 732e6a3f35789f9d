//! Two versions of one file: windows and aligned pages, what moved, the patch and its digest.
