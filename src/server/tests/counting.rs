//! An allocator that counts what this thread allocates, in the tests of this crate alone.
//!
//! # Proof of the `unsafe`
//!
//! Every call goes on to the system's allocator with the same arguments, whose promises are thereby ours. The counts beside it are
//! numbers in the thread's own memory, which are there without an allocation and need no end, so that they can be reached from an
//! allocator at any time, also while a thread ends.
#![expect(unsafe_code, reason = "an allocator is unsafe to write; the proof is above")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// How often this thread has asked for memory.
pub(super) fn allocations() -> u64 {
    COUNT.get()
}

/// Bytes that this thread has asked for, less those it has given back.
pub(super) fn held() -> i64 {
    HELD.get()
}

fn count(size: usize) {
    COUNT.set(COUNT.get() + 1);
    hold(size, 1);
}

fn hold(size: usize, times: i64) {
    // No size is near the largest number there is.
    HELD.set(HELD.get() + times * i64::try_from(size).unwrap_or_default());
}

// SAFETY: see the module's text.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        hold(layout.size(), -1);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(layout.size(), -1);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
