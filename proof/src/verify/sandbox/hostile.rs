//! The hostile suite: one guest for each way to use up what a plugin may use, or to return what no plugin may return. Who runs it, and
//! what has to come of it besides the reason of its end, are other files' business.

use std::borrow::Cow;

use super::guest::{Guest, Import};

pub(crate) const LOG: Import =
    Import { interface: "tollgate:plugin/log@0.1.0-draft", function: "write", kind: "$log (param i32 i32 i32)" };
pub(crate) const STDOUT: Import =
    Import { interface: "wasi:cli/stdout@0.2.0", function: "get-stdout", kind: "$stdout (result i32)" };
const PRINT: Import = Import {
    interface: "wasi:io/streams@0.2.0",
    function: "[method]output-stream.blocking-write-and-flush",
    kind: "$print (param i32 i32 i32 i32)",
};
const RANDOM: Import =
    Import { interface: "wasi:random/random@0.2.0", function: "get-random-bytes", kind: "$random (param i64 i32)" };

/// One way to be hostile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class {
    /// Its number in the suite.
    pub(crate) number: u32,
    /// The plugin's id, and its route's model.
    pub(crate) name: &'static str,
    /// Why it is ended, in the log's word.
    pub(crate) reason: &'static str,
    imports: &'static [Import],
    capabilities: &'static str,
    pages: u32,
    items: &'static str,
    filter: &'static str,
    realloc: &'static str,
}

const PLAIN: Class = Class {
    number: 0,
    name: "",
    reason: "trap",
    imports: &[],
    capabilities: "",
    pages: 2,
    items: "",
    filter: "unreachable",
    realloc: "",
};

/// A string of 60 KiB at an address, under 100,000 flags: 6 GB if it were copied for each.
const ALIAS: &str = "
    (memory.fill (i32.const 65536) (i32.const 97) (i32.const 61440))
    (local.set $a (i32.const 131072))
    (loop $again
        (i32.store (local.get $a) (i32.const 65536))
        (i32.store offset=4 (local.get $a) (i32.const 61440))
        (local.set $a (i32.add (local.get $a) (i32.const 12)))
        (br_if $again (i32.lt_u (local.get $a) (i32.const 1331072))))
    (i32.store (i32.const 1168) (i32.const 131072))
    (i32.store (i32.const 1172) (i32.const 100000))
    (i32.const 1024)";

/// Lines with an escape sequence and a line feed, a KiB each, as errors.
const FLOOD: &str = r"
    (memory.fill (i32.const 4096) (i32.const 120) (i32.const 1024))
    (i32.store (i32.const 4096) (i32.const 0x6d31_5b1b))
    (i32.store8 (i32.const 4200) (i32.const 10))
    (loop $again (call $log (i32.const 3) (i32.const 4096) (i32.const 1024)) (br $again))
    unreachable";

/// The whole of its memory, again and again (64 MiB if it begins with 48): one instruction that nothing interrupts.
const FILL: &str = "
    (drop (memory.grow (i32.const 250)))
    (local.set $a (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 65536)))
    (loop $again (memory.fill (i32.const 65536) (i32.const 1) (local.get $a)) (br $again))
    unreachable";

const PRINTS: &str = "
    (local.set $a (call $stdout))
    (loop $again (call $print (local.get $a) (i32.const 4096) (i32.const 4096) (i32.const 512)) (br $again))
    unreachable";

const DRAWS: &str = "
    (loop $again
        (global.set $bump (i32.const 65536))
        (call $random (i64.const 65536) (i32.const 512))
        (br $again))
    unreachable";

const TABLES: &str = "
    (drop (table.grow $t (ref.null func) (i32.const 90000)))
    (loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1))))
    (drop (table.grow $t (ref.null func) (i32.const 0x7fff_ffff)))
    unreachable";

/// `answer` with a string at an address.
macro_rules! answer {
    ($before:literal, $address:literal, $length:literal) => {
        concat!(
            $before,
            "(i32.store8 (i32.const 1024) (i32.const 3)) (i32.store (i32.const 1032) (i32.const ",
            $address,
            ")) (i32.store (i32.const 1036) (i32.const ",
            $length,
            ")) (i32.const 1024)"
        )
    };
}

/// Classes 1 to 14 and 21, as far as what the host offers allows; some in several forms.
pub(crate) const CLASSES: &[Class] = &[
    Class { number: 1, name: "loop", reason: "cpu", filter: "(loop $again (br $again)) unreachable", ..PLAIN },
    Class {
        number: 2,
        name: "host-calls",
        reason: "cpu",
        imports: &[LOG],
        capabilities: "log",
        filter: "(loop $again (call $log (i32.const 0) (i32.const 0) (i32.const 0)) (br $again)) unreachable",
        ..PLAIN
    },
    Class {
        number: 3,
        name: "grow",
        reason: "memory",
        filter: "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
        ..PLAIN
    },
    Class { number: 4, name: "tables", items: "(table $t 1 funcref)", filter: TABLES, ..PLAIN },
    Class {
        number: 5,
        name: "deep",
        reason: "stack",
        items: "(func $deep (param i64) (result i64)
            (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))",
        filter: "(drop (call $deep (i64.const 0))) unreachable",
        ..PLAIN
    },
    Class { number: 6, name: "fill", reason: "cpu", pages: 768, filter: FILL, ..PLAIN },
    Class { number: 6, name: "fill-16mib", reason: "cpu", filter: FILL, ..PLAIN },
    Class {
        number: 7,
        name: "handles",
        imports: &[STDOUT],
        filter: "(loop $again (drop (call $stdout)) (br $again)) unreachable",
        ..PLAIN
    },
    Class { number: 8, name: "string-2gib", filter: answer!("", "0", "0x7fff_ffff"), ..PLAIN },
    Class { number: 8, name: "string-9mib", reason: "output", pages: 160, filter: answer!("", "65536", "9437184"), ..PLAIN },
    Class { number: 8, name: "alias", reason: "output", pages: 32, filter: ALIAS, ..PLAIN },
    Class {
        number: 9,
        name: "utf8",
        filter: answer!("(memory.fill (i32.const 4096) (i32.const 0xc3) (i32.const 64))", "4096", "64"),
        ..PLAIN
    },
    Class { number: 9, name: "misaligned", filter: "(i32.const 1025)", ..PLAIN },
    Class {
        number: 9,
        name: "allocator",
        realloc: "(if (i32.gt_u (local.get $size) (i32.const 2)) (then (return (i32.const -8))))",
        filter: "(i32.const 1024)",
        ..PLAIN
    },
    Class { number: 10, name: "discriminant", filter: "(i32.store8 (i32.const 1024) (i32.const 77)) (i32.const 1024)", ..PLAIN },
    Class {
        number: 11,
        name: "fields",
        reason: "output",
        pages: 260,
        filter: "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1156) (i32.const 65536))
            (i32.store (i32.const 1160) (i32.const 1000000)) (i32.const 1024)",
        ..PLAIN
    },
    Class { number: 12, name: "log-flood", reason: "cpu", imports: &[LOG], capabilities: "log", filter: FLOOD, ..PLAIN },
    Class {
        number: 12,
        name: "log-empty",
        reason: "cpu",
        imports: &[LOG],
        capabilities: "log",
        filter: "(loop $again (call $log (i32.const 3) (i32.const 0) (i32.const 0)) (br $again)) unreachable",
        ..PLAIN
    },
    Class { number: 13, name: "stdout", reason: "cpu", imports: &[STDOUT, PRINT], filter: PRINTS, ..PLAIN },
    Class {
        number: 14,
        name: "random-2gib",
        imports: &[RANDOM],
        filter: "(call $random (i64.const 0x8000_0000) (i32.const 512)) unreachable",
        ..PLAIN
    },
    Class { number: 14, name: "random", reason: "cpu", imports: &[RANDOM], filter: DRAWS, ..PLAIN },
    Class {
        number: 21,
        name: "held",
        imports: &[STDOUT],
        filter: "(loop $again (drop (call $stdout)) (local.set $a (i32.add (local.get $a) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $a) (i32.const 100)))) unreachable",
        ..PLAIN
    },
    // What comes after an answer is the guest's code as well.
    Class {
        number: 1,
        name: "post-return",
        reason: "cpu",
        items: "(func (export \"cabi_post_tollgate:plugin/filter-prompt@0.1.0-draft#filter\") (param i32) (loop $again (br $again)))",
        filter: "(i32.const 1024)",
        ..PLAIN
    },
];

impl Class {
    /// Its guest.
    pub(crate) fn guest(self) -> Guest<'static> {
        let Class { name, imports, capabilities, pages, items, filter, realloc, .. } = self;
        Guest { name, imports, capabilities, pages, items: Cow::Borrowed(items), filter, realloc, ..Guest::default() }
    }

    /// What the operator grants it.
    pub(crate) fn grants(self) -> &'static str {
        if self.capabilities.is_empty() { "" } else { "grants = [\"log\"]" }
    }
}
