//! Steps that are recorded once and repeated: CUDA graphs.
//!
//! A launch costs the host some microseconds, and a decoding step has hundreds. So a step of a shape that has come before is captured,
//! and the next of its shape is one launch. The operations are asked for each time all the same: what they need of memory is where it
//! was when they were captured (the shape's *tape*), what they copy from the host is copied, and what they launch is left out,
//! because the graph has it. What is copied from the host is there before the graph begins, so its places are nothing else's.
//!
//! What cannot be captured (whatever waits for the device) interrupts a recording: what has been captured is launched, and the rest of the step
//! runs as usual, as do all steps of that shape from then on.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use cudarc::driver::{CudaGraph, sys};
use pippin_tensor::{Result, StepShape, TensorError};

use crate::memory::Memory;

/// A step with more rows is not recorded: its kernels take longer than their launches.
pub(crate) const MOST_ROWS: usize = 64;
/// How often a shape comes before it is recorded.
const PATIENCE: usize = 2;
/// Shapes that are remembered.
const MOST_TAPES: usize = 64;

/// A place in memory and its size.
type At = (sys::CUdeviceptr, usize);

/// Where a block is to be.
pub(crate) enum Place {
    /// Anywhere.
    Free,
    /// There.
    Known(sys::CUdeviceptr),
    /// Anywhere, but the recorder has to know.
    New,
}

/// What is known of the steps of a shape.
#[derive(Default)]
struct Tape {
    /// Where the step's inputs are, in the order in which they were asked for.
    inputs: Vec<At>,
    /// Where its operations found memory, in their order.
    body: Vec<sys::CUdeviceptr>,
    /// The places among these, each once.
    own: Vec<At>,
    graph: Option<CudaGraph>,
    /// How often the shape has come.
    uses: usize,
    /// When it came last.
    used: u64,
    is_unfit: bool,
}

#[derive(Default)]
enum Mode {
    #[default]
    Free,
    /// The inputs of a step of this shape are uploaded; so many are.
    Inputs(StepShape, usize),
    /// A step is captured.
    Records {
        shape: StepShape,
        body: Vec<sys::CUdeviceptr>,
        own: Vec<At>,
        free: BTreeMap<usize, Vec<sys::CUdeviceptr>>,
        /// Places of what came from the host.
        fixed: HashSet<sys::CUdeviceptr>,
    },
    /// A step is repeated; so many of its places have been asked for.
    Repeats(StepShape, usize),
}

#[derive(Default)]
struct State {
    mode: Mode,
    tapes: HashMap<StepShape, Tape>,
    /// Places of recordings that were given up, which somebody may still read.
    late: Vec<At>,
    /// Places of inputs that somebody still has.
    busy: HashSet<sys::CUdeviceptr>,
    steps: u64,
}

/// Records and repeats the steps of a model. Everything is on one thread.
#[derive(Default)]
pub(crate) struct Recorder(RefCell<State>);

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// The inputs of a step of this shape follow.
    pub(crate) fn begin_inputs(&self, memory: &Memory, shape: StepShape) {
        let state = &mut *self.0.borrow_mut();
        state.mode = Mode::Free;
        if shape.rows > MOST_ROWS {
            return;
        }
        state.steps += 1;
        if state.tapes.len() >= MOST_TAPES && !state.tapes.contains_key(&shape) {
            let oldest = state.tapes.iter().min_by_key(|(_, tape)| tape.used).map(|(shape, _)| shape.clone());
            if let Some(tape) = oldest.and_then(|oldest| state.tapes.remove(&oldest)) {
                // The stream may still be at it.
                let _ = memory.stream().synchronize();
                drop(tape.graph);
                state.late.extend(tape.inputs.into_iter().chain(tape.own));
            }
        }
        let tape = state.tapes.entry(shape.clone()).or_default();
        (tape.uses, tape.used) = (tape.uses + 1, state.steps);
        state.mode = Mode::Inputs(shape, 0);
    }

    /// Where the next block of this size is to be, which is for what comes from the host or for what the device computes.
    pub(crate) fn place(&self, size: usize, is_from_host: bool) -> Result<Place> {
        let state = &mut *self.0.borrow_mut();
        match &mut state.mode {
            Mode::Free => Ok(Place::Free),
            Mode::Inputs(..) if !is_from_host => Ok(Place::Free),
            Mode::Inputs(shape, count) => {
                let known = state.tapes.get(shape).and_then(|tape| tape.inputs.get(*count)).copied();
                match known {
                    // That of an earlier step is still used: this step is like no other.
                    Some((at, _)) if state.busy.contains(&at) => {
                        state.mode = Mode::Free;
                        Ok(Place::Free)
                    }
                    Some((at, known)) if known == size => {
                        *count += 1;
                        state.busy.insert(at);
                        Ok(Place::Known(at))
                    }
                    _ => Ok(Place::New),
                }
            }
            Mode::Records { .. } if is_from_host => Ok(Place::New),
            Mode::Records { body, free, .. } => match free.get_mut(&size).and_then(Vec::pop) {
                Some(at) => {
                    body.push(at);
                    Ok(Place::Known(at))
                }
                None => Ok(Place::New),
            },
            Mode::Repeats(shape, count) => {
                let at = state.tapes.get(shape).and_then(|tape| tape.body.get(*count)).copied();
                *count += 1;
                at.map(Place::Known).ok_or_else(|| unexpected("more memory than before"))
            }
        }
    }

    /// A block has been found for [`Place::New`].
    pub(crate) fn placed(&self, at: sys::CUdeviceptr, size: usize, is_from_host: bool) {
        let state = &mut *self.0.borrow_mut();
        match &mut state.mode {
            Mode::Inputs(shape, count) => {
                let Some(tape) = state.tapes.get_mut(shape) else { return };
                // Another size than before: what has been recorded reads elsewhere.
                state.late.extend(tape.inputs.drain(*count..));
                tape.inputs.push((at, size));
                state.late.append(&mut tape.own);
                (tape.graph, tape.uses) = (None, 1);
                *count += 1;
                state.busy.insert(at);
            }
            Mode::Records { body, own, fixed, .. } => {
                body.push(at);
                own.push((at, size));
                if is_from_host {
                    fixed.insert(at);
                }
            }
            Mode::Free | Mode::Repeats(..) => state.late.push((at, size)),
        }
    }

    /// A block of a tape is no longer used.
    pub(crate) fn give(&self, at: sys::CUdeviceptr, size: usize) {
        let state = &mut *self.0.borrow_mut();
        state.busy.remove(&at);
        if let Mode::Records { own, free, fixed, .. } = &mut state.mode
            && own.contains(&(at, size))
            && !fixed.contains(&at)
        {
            free.entry(size).or_default().push(at);
        }
    }

    /// Whether a step is captured at this moment.
    pub(crate) fn records(&self) -> bool {
        matches!(self.0.borrow().mode, Mode::Records { .. })
    }

    /// Whether what is asked for is in a graph already.
    pub(crate) fn repeats(&self) -> bool {
        matches!(self.0.borrow().mode, Mode::Repeats(..))
    }

    /// Runs the operations of the step whose inputs have been uploaded last.
    pub(crate) fn run<T, E: From<TensorError>>(
        &self,
        memory: &Memory,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let fail = |error| E::from(memory.failed(error));
        let mode = std::mem::take(&mut self.0.borrow_mut().mode);
        let Mode::Inputs(shape, _) = mode else { return f() };
        let (has_graph, is_due) = {
            let state = self.0.borrow();
            let tape = state.tapes.get(&shape);
            let is_due = |tape: &Tape| !tape.is_unfit && tape.uses > PATIENCE;
            (tape.is_some_and(|tape| tape.graph.is_some()), tape.is_some_and(is_due))
        };
        if has_graph {
            self.0.borrow_mut().mode = Mode::Repeats(shape.clone(), 0);
            let outcome = f();
            self.0.borrow_mut().mode = Mode::Free;
            let outcome = outcome?;
            let state = self.0.borrow();
            let graph = state.tapes.get(&shape).and_then(|tape| tape.graph.as_ref());
            graph.map_or(Ok(()), CudaGraph::launch).map_err(fail)?;
            return Ok(outcome);
        }
        if !is_due {
            return f();
        }
        // What is copied from the host meanwhile must not meet what is on its way.
        memory.stream().synchronize().map_err(fail)?;
        {
            let state = &mut *self.0.borrow_mut();
            let late = std::mem::take(&mut state.late);
            let (busy, unused): (Vec<At>, Vec<At>) =
                late.into_iter().partition(|(at, _)| state.busy.contains(at));
            state.late = busy;
            memory.give(unused);
            state.mode = Mode::Records {
                shape: shape.clone(),
                body: Vec::new(),
                own: Vec::new(),
                free: BTreeMap::new(),
                fixed: HashSet::new(),
            };
        }
        let relaxed = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        if let Err(error) = memory.stream().begin_capture(relaxed) {
            self.0.borrow_mut().mode = Mode::Free;
            return Err(fail(error));
        }
        let outcome = f();
        let mode = std::mem::take(&mut self.0.borrow_mut().mode);
        // It may have been interrupted.
        let Mode::Records { body, own, .. } = mode else { return outcome };
        let graph = memory.stream().end_capture(sys::CUgraphInstantiate_flags(0));
        let state = &mut *self.0.borrow_mut();
        let tape = state.tapes.entry(shape).or_default();
        match (outcome, graph) {
            (Ok(outcome), Ok(graph)) => {
                (tape.body, tape.own, tape.graph) = (body, own, graph);
                tape.graph.as_ref().map_or(Ok(()), CudaGraph::launch).map_err(fail)?;
                Ok(outcome)
            }
            (outcome, graph) => {
                tape.is_unfit = true;
                state.late.extend(own);
                graph.map_err(fail)?;
                outcome
            }
        }
    }

    /// Gives up a recording: what has been captured is launched.
    pub(crate) fn interrupt(&self, memory: &Memory) -> Result<()> {
        let state = &mut *self.0.borrow_mut();
        match &state.mode {
            Mode::Free | Mode::Inputs(..) => return Ok(()),
            Mode::Repeats(..) => return Err(unexpected("to wait for the device")),
            Mode::Records { .. } => {}
        }
        let Mode::Records { shape, own, .. } = std::mem::take(&mut state.mode) else { return Ok(()) };
        state.tapes.entry(shape).or_default().is_unfit = true;
        // Whoever has them gives them to nobody: they are free when the next step is recorded.
        state.late.extend(own);
        let fail = |error| memory.failed(error);
        let graph = memory.stream().end_capture(sys::CUgraphInstantiate_flags(0)).map_err(fail)?;
        if let Some(graph) = graph {
            graph.launch().map_err(fail)?;
            // It must not be destroyed before it has run.
            memory.stream().synchronize().map_err(fail)?;
        }
        Ok(())
    }

    /// What follows is no part of a step.
    pub(crate) fn leave(&self, memory: &Memory) -> Result<()> {
        self.interrupt(memory)?;
        self.0.borrow_mut().mode = Mode::Free;
        Ok(())
    }

    /// Forgets everything, and says which places are free by that.
    pub(crate) fn forget(&self) -> Vec<At> {
        let state = std::mem::take(&mut *self.0.borrow_mut());
        let of_tapes = state.tapes.into_values().flat_map(|tape| tape.inputs.into_iter().chain(tape.own));
        of_tapes.chain(state.late).collect()
    }
}

/// A step asked for something else than the one that was recorded.
fn unexpected(what: &str) -> TensorError {
    TensorError::Device {
        device: crate::NAME.to_owned(),
        message: format!("a step that is repeated asked for {what}"),
    }
}
