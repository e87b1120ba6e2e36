//! The model beside the process it describes.

use std::fmt::Write as _;
use std::fs;

use memtrace::abi::MremapFlags;
use memtrace::decode::Call;
use memtrace::mm::{
    AddressSpace, Change, Charge, Context, Evidence, Flow, MapsEntry, Snapshot, Span, Verb, Vma,
    compare, effect, evidence_wanted, parse_maps, parse_smaps,
};
use memtrace::units::AddrRange;

pub fn smaps() -> Snapshot {
    let text = fs::read("/proc/self/smaps").expect("smaps is readable");
    parse_smaps(&text).expect("the kernel's text parses")
}

fn lines_in(snapshot: &Snapshot, range: AddrRange) -> Vec<MapsEntry> {
    let lines = snapshot.entries.iter();
    let lines = lines.filter(|line| line.range.overlaps(range));
    lines.cloned().collect()
}

pub struct Twin {
    model: AddressSpace,
    context: Context,
    seed: u64,
    log: Vec<String>,
    /// A call that sets "not copied by fork" failed on its way: nothing tells how far it came. It
    /// does not matter, a child's map is read.
    dontfork_unsure: bool,
    pub rechecks: u64,
}

impl Twin {
    pub fn new(model: AddressSpace, context: Context, seed: u64) -> Twin {
        Twin {
            model,
            context,
            seed,
            log: Vec::new(),
            dontfork_unsure: false,
            rechecks: 0,
        }
    }

    pub fn forget(&mut self) {
        self.log.clear();
    }

    fn fail(&self, what: &str) -> ! {
        let mut text = format!("MM_SELF_SEED={}: {what}\nthe last calls:\n", self.seed);
        let last = self.log.len().saturating_sub(20);
        for line in &self.log[last..] {
            let _ = writeln!(text, "  {line}");
        }
        panic!("{text}");
    }

    /// What the supervisor does at an exit stop, and then the comparison.
    pub fn observe(&mut self, call: &Call, result: i64) {
        self.log.push(format!("{call:x?} = {result:#x} ({result})"));
        self.dontfork_unsure |= match call {
            Call::Madvise { advice, .. } => {
                matches!(advice, 10 | 11) && result != 0 && result != -12
            }
            Call::ProcessMadvise { ranges, advice, .. } => {
                let all = ranges.iter().map(|span| span.len).sum::<u64>();
                matches!(advice, 10 | 11) && result != all as i64
            }
            _ => false,
        };
        let text = fs::read("/proc/self/maps").expect("maps is readable");
        let snapshot = parse_maps(&text).expect("the kernel's text parses");
        let mut wanted = Vec::new();
        evidence_wanted(call, result, &self.context, &mut wanted);
        let answer = |range| Evidence {
            range,
            entries: lines_in(&snapshot, range),
        };
        let evidence: Vec<Evidence> = wanted.into_iter().map(answer).collect();
        let effect = effect(&self.model, call, result, &self.context, &evidence);
        // The one thing that may surprise it: a stack that had grown unseen changes at its bottom.
        let stack = |vma: &&Vma| vma.flags.growsdown;
        if effect.recheck && self.model.vmas().filter(stack).count() < 2 {
            self.fail("the model is surprised");
        }
        if let Some(brk) = effect.brk {
            self.context.brk = brk.page_ceil();
        }
        let before = self.model.totals();
        let mut spans = Vec::new();
        let mut flow = Flow::default();
        for change in effect.changes {
            self.log.push(format!("    {change:x?}"));
            flow += self.model.apply(change, &mut spans);
        }
        self.check_flow(before.mapped.0, before.reserved.0, flow, &spans);
        if effect.recheck {
            self.resync();
        } else if let Call::Mremap(call) = call
            && call
                .flags
                .contains(MremapFlags::FIXED | MremapFlags::DONTUNMAP)
            && result < 0
        {
            // Whether alike pages were moved over alike pages before it failed, maps does not show.
            self.model.learn_flags(&smaps());
        }
        self.check(&snapshot);
    }

    /// What the supervisor does when in doubt.
    fn resync(&mut self) {
        let snapshot = smaps();
        self.rechecks += 1;
        for difference in compare(&self.model, &snapshot).differences {
            let lines = lines_in(&snapshot, difference.range);
            let vmas = lines.iter().map(|line| Vma::from_entry(line, None));
            let change = Change::Replace {
                range: difference.range,
                vmas: vmas
                    .filter_map(|vma| vma.clipped(difference.range))
                    .collect(),
            };
            self.model.apply(change, &mut Vec::new());
        }
        self.model.learn_flags(&snapshot);
    }

    /// What happened to bytes explains how the sums changed.
    fn check_flow(&self, mapped: u64, reserved: u64, flow: Flow, spans: &[Span]) {
        let of = |verb| {
            let spans = spans.iter().filter(|span| span.verb == verb);
            spans.map(|span| span.range.len()).sum::<u64>()
        };
        let now = self.model.totals();
        let gained = flow.map.0 + flow.reserve.0 + of(Verb::Grown);
        if now.mapped.0 + flow.release.0 != mapped + gained {
            self.fail("the flow does not explain what is mapped");
        }
        let lost = flow.commit.0 + of(Verb::ReleaseReserved);
        // A stack may be without access, and then grows so.
        let grown = now.reserved.0 + lost - (reserved + flow.reserve.0 + flow.decommit.0);
        if grown != 0 && grown != of(Verb::Grown) {
            self.fail("the flow does not explain what is reserved");
        }
    }

    pub fn check(&mut self, snapshot: &Snapshot) {
        let found = compare(&self.model, snapshot);
        if found.drift.0 != 0 {
            self.fail(&format!("drift {found:#x?}"));
        }
        for range in found.grown {
            self.model.apply(Change::Grow(range), &mut Vec::new());
        }
        let totals = self.model.totals();
        if totals != self.model.recount() {
            self.fail("the running totals are not a recount");
        }
        let lines = snapshot.entries.iter();
        if totals.mapped.0 != lines.map(|line| line.range.len()).sum::<u64>() {
            self.fail("mapped is not the sum of the lines");
        }
        if 2 * snapshot.entries.len() < self.model.vmas().count() {
            self.fail("the model has far more VMAs than the kernel");
        }
    }

    /// Flags and charge of every byte against smaps.
    pub fn check_flags(&mut self, learn: bool) {
        let snapshot = smaps();
        self.check(&snapshot);
        let mut exact = 0;
        for (line, info) in snapshot.entries.iter().zip(&snapshot.smaps) {
            exact += if info.charged { line.range.len() } else { 0 };
            for vma in self.model.overlapping(line.range) {
                let flags = vma.flags;
                let told = (flags.noreserve, flags.growsdown, flags.sealed);
                let shown = (info.noreserve, info.growsdown, info.sealed);
                let copied = self.dontfork_unsure || flags.dontfork == info.dontfork;
                if told != shown || !copied {
                    self.fail(&format!("flags: {line}\n{vma:x?}\n{info:?}"));
                }
                let wrong = match vma.charge {
                    Charge::Yes => !info.charged,
                    Charge::No => info.charged,
                    Charge::Maybe => false,
                };
                if wrong {
                    self.fail(&format!("charge {:?}: {line}\n{info:?}", vma.charge));
                }
            }
        }
        let totals = self.model.totals();
        if exact < totals.charged_low.0 || totals.charged_high.0 < exact {
            self.fail("the exact charge is out of bounds");
        }
        if learn {
            self.model.learn_flags(&snapshot);
            self.dontfork_unsure = false;
            self.check(&snapshot);
            let totals = self.model.totals();
            if totals.charged_low.0 != exact || totals.charged_high.0 != exact {
                self.fail("the charge learned is not the exact one");
            }
        }
    }
}
