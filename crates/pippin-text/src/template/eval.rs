//! The interpreter: walks the syntax tree, counts every step and every byte.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::TemplateLimits;
use super::builtins::{self, required};
use super::parse::{Arg, Block, Expr, For, Macro, Name, Stmt, Target};
use super::value::{Key, Seq, Value};

/// Why rendering ended early.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The template called `raise_exception`.
    Refused(String),
    /// A limit was exceeded: its unit and size.
    Limit(&'static str, u64),
    /// Anything else that is wrong.
    Error(String),
}

pub(crate) type Outcome<T> = Result<T, Fault>;

pub(crate) fn fail<T>(problem: impl Into<String>) -> Outcome<T> {
    Err(Fault::Error(problem.into()))
}

/// Nested evaluations: expressions, blocks and macro calls together. `STACK` in the parent module is made for it.
const MAX_DEPTH: u32 = 400;

/// What a statement does to the loop around it.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// One scope. Scopes form a chain through `parent`; scope 0 holds the variables of the caller.
#[derive(Default)]
struct Scope {
    names: HashMap<Name, Value>,
    parent: Option<usize>,
}

pub(super) struct LoopState {
    pub(super) serial: u64,
    /// All items, or those that were taken from the source so far.
    pub(super) items: Items,
    source: Source,
    pub(super) index: usize,
    pub(super) depth: usize,
    pub(super) changed: Option<Vec<Value>>,
    /// For `loop(…)`: the loop itself and the scope it stands in.
    definition: Arc<For>,
    scope: usize,
}

/// What is left of a generator: items, and the error that comes after them. Filters work at once, but as in Jinja an
/// error counts only if somebody asks for the item it concerns.
#[derive(Default)]
pub(super) struct Generator {
    pub(super) items: std::vec::IntoIter<Value>,
    pub(super) fault: Option<Fault>,
}

pub(super) struct Cycler {
    pub(super) items: Vec<Value>,
    pub(super) position: usize,
}

pub(super) struct Joiner {
    pub(super) separator: Value,
    pub(super) used: bool,
}

/// What a loop runs over: the list itself where there is one, not a copy.
pub(super) enum Items {
    Shared(Arc<Seq>),
    Own(Vec<Value>),
}

/// Where a loop gets the items from that it does not have yet.
enum Source {
    Nothing,
    Generator(usize),
    /// What the loop's `if` still has to look at.
    Unfiltered(std::vec::IntoIter<Value>),
}

impl Items {
    pub(super) fn get(&self) -> &[Value] {
        match self {
            Self::Shared(seq) => &seq.items,
            Self::Own(items) => items,
        }
    }
}

pub(crate) struct Interpreter {
    limits: TemplateLimits,
    steps: u64,
    memory: u64,
    depth: u32,
    line: u32,
    now: Option<i64>,
    out: String,
    /// What is wrong with the output that is being written. It counts when the output is wanted: who leaves a block by
    /// `break` wants it no more.
    out_fault: Option<(u32, Fault)>,
    scopes: Vec<Scope>,
    scope: usize,
    /// The highest scope that a macro remembers: it and those below must be kept.
    remembered: usize,
    pub(super) namespaces: Vec<IndexMap<Key, Value>>,
    /// The scopes that macros were defined in.
    macros: Vec<usize>,
    pub(super) loops: Vec<LoopState>,
    pub(super) generators: Vec<Generator>,
    pub(super) cyclers: Vec<Cycler>,
    pub(super) joiners: Vec<Joiner>,
    serial: u64,
}

/// The arguments of a call.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) positional: Vec<Value>,
    pub(crate) named: Vec<(Name, Value)>,
}

impl Args {
    /// Takes the arguments by position or name, as a function with these parameters would.
    pub(crate) fn take<const N: usize>(
        self,
        function: &str,
        parameters: [&str; N],
    ) -> Outcome<[Option<Value>; N]> {
        let mut result = [const { None }; N];
        if self.positional.len() > N {
            return fail(format!("{function} takes at most {N} arguments, {} given", self.positional.len()));
        }
        for (slot, value) in result.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            match parameters.iter().position(|parameter| *parameter == name.as_ref()) {
                Some(index) if result[index].is_none() => result[index] = Some(value),
                Some(_) => return fail(format!("{function} got the argument {name} twice")),
                None => return fail(format!("{function} has no parameter {name}")),
            }
        }
        Ok(result)
    }
}

impl Interpreter {
    /// An interpreter in which so many steps are taken already.
    pub(crate) fn new(limits: TemplateLimits, now: Option<i64>, steps: u64) -> Self {
        Self {
            limits,
            steps,
            memory: 0,
            depth: 0,
            line: 1,
            now,
            out: String::new(),
            out_fault: None,
            scopes: vec![Scope::default()],
            scope: 0,
            remembered: 0,
            namespaces: Vec::new(),
            macros: Vec::new(),
            loops: Vec::new(),
            generators: Vec::new(),
            cyclers: Vec::new(),
            joiners: Vec::new(),
            serial: 0,
        }
    }

    /// Sets a variable before the template runs.
    pub(crate) fn define(&mut self, name: &str, value: Value) {
        // Templates copy what they are given a few times; long conversations need more than short ones.
        self.limits.memory = self.limits.memory.saturating_add(value.weight().saturating_mul(32));
        self.scopes[0].names.insert(name.into(), value);
    }

    /// Runs a whole template. An error comes with the line it happened in.
    pub(crate) fn run(&mut self, block: &Block) -> Result<String, (u32, Fault)> {
        match (self.block(block), self.out_fault.take()) {
            (Ok(_), None) => Ok(std::mem::take(&mut self.out)),
            (Ok(_), Some(fault)) => Err(fault),
            (Err(fault), _) => Err((self.line, fault)),
        }
    }

    /// Steps taken so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    // Accounting.

    /// Counts work that is about to be done.
    pub(crate) fn work(&mut self, steps: u64) -> Outcome<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limits.steps {
            return Err(Fault::Limit("steps", self.limits.steps));
        }
        Ok(())
    }

    /// Counts bytes that are about to be made, and the work of making them.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Outcome<()> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.limits.memory {
            return Err(Fault::Limit("bytes of memory", self.limits.memory));
        }
        self.work(bytes / 64)
    }

    /// Counts a pass over a whole value.
    pub(crate) fn visit(&mut self, value: &Value) -> Outcome<()> {
        self.work(value.weight() / 16)
    }

    /// Counts a look at each character of a text: some nanoseconds for each, as much as a usual step for a few of them.
    pub(crate) fn scan(&mut self, text: &str) -> Outcome<()> {
        self.work(text.len() as u64 / 4)
    }

    /// Bytes that may still be made.
    pub(crate) fn memory_left(&self) -> usize {
        usize::try_from(self.limits.memory - self.memory.min(self.limits.memory)).unwrap_or(usize::MAX)
    }

    pub(crate) fn text(&mut self, text: String) -> Outcome<Value> {
        self.reserve(text.len() as u64)?;
        Ok(Value::str(text))
    }

    pub(crate) fn list(&mut self, items: Vec<Value>) -> Outcome<Value> {
        self.reserve(items.len() as u64 * size_of::<Value>() as u64)?;
        Value::list(items)
    }

    /// Python's `str(value)`.
    pub(crate) fn string(&mut self, value: &Value) -> Outcome<Arc<str>> {
        match value {
            Value::Str(text) => Ok(text.clone()),
            other => {
                // An upper bound for nearly all values: quotes, separators and escapes included.
                self.reserve(other.weight().saturating_mul(4))?;
                let mut out = String::new();
                match other {
                    // Within other values, and within itself, it is not written out.
                    Value::Namespace(index) => {
                        let entries = Value::dict(self.namespaces[*index].clone())?;
                        self.reserve(entries.weight().saturating_mul(4))?;
                        out.push_str("<Namespace ");
                        entries.repr(&mut out);
                        out.push('>');
                    }
                    other => other.print(&mut out),
                }
                Ok(out.into())
            }
        }
    }

    pub(crate) fn now(&self) -> Option<i64> {
        self.now
    }

    fn enter(&mut self) -> Outcome<()> {
        self.work(1)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::Limit("levels of recursion", MAX_DEPTH.into()));
        }
        Ok(())
    }

    // Scopes.

    fn push_scope(&mut self, parent: usize) -> Outcome<usize> {
        self.reserve(size_of::<Scope>() as u64)?;
        self.scopes.push(Scope { names: HashMap::new(), parent: Some(parent) });
        Ok(std::mem::replace(&mut self.scope, self.scopes.len() - 1))
    }

    /// Leaves a scope for the one `push_scope` returned. The scope is forgotten unless a macro remembers it.
    fn pop_scope(&mut self, outer: usize) {
        if self.scope > self.remembered {
            self.scopes.truncate(self.scope);
        }
        self.scope = outer;
    }

    fn lookup(&self, name: &str) -> Option<&Value> {
        let mut scope = Some(self.scope);
        while let Some(index) = scope {
            let current = &self.scopes[index];
            if let Some(value) = current.names.get(name) {
                return Some(value);
            }
            scope = current.parent;
        }
        None
    }

    fn store(&mut self, name: &Name, value: Value) -> Outcome<()> {
        self.reserve(size_of::<(Name, Value)>() as u64)?;
        self.scopes[self.scope].names.insert(name.clone(), value);
        Ok(())
    }

    fn assign(&mut self, target: &Target, value: Value) -> Outcome<()> {
        match target {
            Target::Name(name) => self.store(name, value),
            Target::Attribute(object, name) => match self.expr(object)? {
                Value::Namespace(index) => {
                    check_namespace_name(name)?;
                    self.reserve(size_of::<(Key, Value)>() as u64)?;
                    self.namespaces[index].insert(Key::Str(name.clone()), value);
                    Ok(())
                }
                other => fail(format!("only namespaces can be assigned to, not {}", other.type_name())),
            },
            Target::Tuple(targets) => {
                let items = self.iterate(&value)?;
                if items.len() != targets.len() {
                    return fail(format!(
                        "cannot unpack {} values into {} names",
                        items.len(),
                        targets.len()
                    ));
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item))
            }
        }
    }

    // Statements.

    fn emit(&mut self, text: &str) -> Outcome<()> {
        self.work(text.len() as u64 / 64)?;
        if (self.out.len() + text.len()) as u64 > self.limits.output {
            return Err(Fault::Limit("bytes of output", self.limits.output));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// Writes what a filter or call block came to. Jinja does not turn it into text, and refuses what is not.
    fn emit_text(&mut self, value: &Value) -> Outcome<()> {
        if let Value::Str(text) = value {
            return self.emit(text);
        }
        let problem = format!("the block must come to a string, not {}", describe(value));
        self.out_fault.get_or_insert((self.line, Fault::Error(problem)));
        Ok(())
    }

    fn block(&mut self, block: &Block) -> Outcome<Flow> {
        for (line, stmt) in block {
            self.line = *line;
            match self.stmt(stmt)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn stmt(&mut self, stmt: &Stmt) -> Outcome<Flow> {
        self.enter()?;
        let flow = self.stmt_inner(stmt)?;
        self.depth -= 1;
        Ok(flow)
    }

    fn stmt_inner(&mut self, stmt: &Stmt) -> Outcome<Flow> {
        match stmt {
            Stmt::Raw(text) => self.emit(text)?,
            Stmt::Emit(expr) => {
                let value = self.expr(expr)?;
                let text = self.string(&value)?;
                self.emit(&text)?;
            }
            Stmt::For(definition) => return self.for_loop(definition),
            Stmt::If { test, then, other } => {
                return if self.expr(test)?.is_true() { self.block(then) } else { self.block(other) };
            }
            Stmt::With { assignments, body } => {
                // The values are computed outside.
                let values =
                    assignments.iter().map(|(_, value)| self.expr(value)).collect::<Outcome<Vec<_>>>()?;
                let outer = self.push_scope(self.scope)?;
                for ((target, _), value) in assignments.iter().zip(values) {
                    self.assign(target, value)?;
                }
                let flow = self.block(body)?;
                self.pop_scope(outer);
                return Ok(flow);
            }
            Stmt::Set { target, value } => {
                let value = self.expr(value)?;
                self.assign(target, value)?;
            }
            Stmt::SetBlock { target, filter, body } => {
                let (flow, mut value) = self.capture(self.scope, |this| this.block(body))?;
                // Who leaves the loop leaves the block with it: what it wrote is lost, and nothing is set.
                if flow != Flow::Next {
                    return Ok(flow);
                }
                if let Some(filter) = filter {
                    value = self.filter_captured(filter, value)?;
                }
                self.assign(target, value)?;
            }
            Stmt::FilterBlock { filter, body } => {
                let (flow, value) = self.capture(self.scope, |this| this.block(body))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.filter_captured(filter, value)?;
                self.emit_text(&value)?;
            }
            Stmt::Macro(name, definition) => {
                let value = self.instantiate(definition)?;
                self.store(name, value)?;
            }
            Stmt::CallBlock { call, caller } => {
                let caller = self.instantiate(caller)?;
                let Expr::Call(callee, args, line) = call else { return fail("nothing is called") };
                let value = self.call(callee, args, *line, Some(caller))?;
                self.emit_text(&value)?;
            }
            Stmt::Do(expr) => {
                self.expr(expr)?;
            }
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// Runs something in a new scope and returns what it wrote.
    fn capture(
        &mut self,
        parent: usize,
        run: impl FnOnce(&mut Self) -> Outcome<Flow>,
    ) -> Outcome<(Flow, Value)> {
        let outer = self.push_scope(parent)?;
        let before = (std::mem::take(&mut self.out), self.out_fault.take());
        let flow = run(self)?;
        let (text, fault) =
            (std::mem::replace(&mut self.out, before.0), std::mem::replace(&mut self.out_fault, before.1));
        self.pop_scope(outer);
        if let (Some((line, fault)), Flow::Next) = (fault, &flow) {
            self.line = line;
            return Err(fault);
        }
        Ok((flow, self.text(text)?))
    }

    fn for_loop(&mut self, definition: &Arc<For>) -> Outcome<Flow> {
        let iterable = self.expr(&definition.iter)?;
        self.run_loop(definition, &iterable, 0)
    }

    /// Runs a loop; what is returned is what its `else` does to the loop around it.
    fn run_loop(&mut self, definition: &Arc<For>, iterable: &Value, depth: usize) -> Outcome<Flow> {
        let (items, source) = match iterable {
            Value::Generator(index) => (Items::Own(Vec::new()), Source::Generator(*index)),
            other if definition.filter.is_some() => {
                (Items::Own(Vec::new()), Source::Unfiltered(self.iterate(other)?.into_iter()))
            }
            Value::List(seq) | Value::Tuple(seq) | Value::Group(seq) => {
                (Items::Shared(seq.clone()), Source::Nothing)
            }
            other => (Items::Own(self.iterate(other)?), Source::Nothing),
        };
        self.serial += 1;
        let (slot, serial) = (self.loops.len(), self.serial);
        let (definition, scope) = (definition.clone(), self.scope);
        self.loops.push(LoopState {
            serial,
            items,
            source,
            index: 0,
            depth,
            changed: None,
            definition: definition.clone(),
            scope,
        });
        let name: Name = "loop".into();
        let mut finished = false;
        let mut index = 0;
        while self.has_item(slot, index)? {
            self.work(1)?;
            self.loops[slot].index = index;
            let item = self.loops[slot].items.get()[index].clone();
            let outer = self.push_scope(self.scope)?;
            self.store(&name, Value::Loop { slot, serial })?;
            self.assign(&definition.target, item)?;
            let flow = self.block(&definition.body)?;
            self.pop_scope(outer);
            match flow {
                Flow::Next => finished = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
            index += 1;
        }
        self.loops.truncate(slot);
        // Not "if there was nothing to loop over": in Jinja it is the end of the body that rules `else` out.
        if finished {
            return Ok(Flow::Next);
        }
        let outer = self.push_scope(self.scope)?;
        let flow = self.block(&definition.otherwise)?;
        self.pop_scope(outer);
        Ok(flow)
    }

    /// Whether a loop has an item at an index. Generators and filters are asked for it now, not before.
    pub(super) fn has_item(&mut self, slot: usize, index: usize) -> Outcome<bool> {
        while index >= self.loops[slot].items.get().len() {
            let item = match &mut self.loops[slot].source {
                Source::Nothing => None,
                Source::Unfiltered(items) => items.next(),
                Source::Generator(generator) => {
                    let generator = *generator;
                    self.next_item(generator)?
                }
            };
            let Some(item) = item else { return Ok(false) };
            let (definition, scope) = (self.loops[slot].definition.clone(), self.loops[slot].scope);
            if let Some(filter) = &definition.filter {
                let outer = self.push_scope(scope)?;
                self.assign(&definition.target, item.clone())?;
                let wanted = self.expr(filter)?.is_true();
                self.pop_scope(outer);
                if !wanted {
                    continue;
                }
            }
            self.reserve(size_of::<Value>() as u64)?;
            if let Items::Own(items) = &mut self.loops[slot].items {
                items.push(item);
            }
        }
        Ok(true)
    }

    fn instantiate(&mut self, definition: &Arc<Macro>) -> Outcome<Value> {
        self.reserve(size_of::<usize>() as u64)?;
        self.remembered = self.remembered.max(self.scope);
        self.macros.push(self.scope);
        Ok(Value::Macro(self.macros.len() - 1, definition.clone()))
    }

    fn call_macro(&mut self, index: usize, definition: &Macro, args: Args) -> Outcome<Value> {
        let (scope, line) = (self.macros[index], self.line);
        let (_, value) = self.capture(scope, |this| {
            let Macro { name, parameters, special, .. } = definition;
            let own_name =
                name.as_deref().map_or_else(|| "of the call block".to_owned(), |name| format!("'{name}'"));
            let mut named = args.named;
            let given = args.positional.len();
            let mut positional = args.positional.into_iter();
            let mut values: Vec<Option<Value>> =
                positional.by_ref().take(parameters.len()).map(Some).collect();
            for name in &parameters[values.len()..] {
                let found = named.iter().position(|(argument, _)| argument == name);
                values.push(found.map(|index| named.remove(index).1));
            }
            let explicit = parameters.iter().position(|name| name.as_ref() == "caller");
            if special.caller && explicit.is_some_and(|place| place < given) && given < parameters.len() {
                return fail(format!(
                    "macro {own_name} was given `caller` by position, but not all arguments"
                ));
            }
            if special.caller && explicit.is_none() {
                let found = named.iter().position(|(argument, _)| argument.as_ref() == "caller");
                let caller = found.map(|index| named.remove(index).1);
                let caller = caller.unwrap_or_else(|| Value::undefined("No caller defined"));
                this.store(&"caller".into(), caller)?;
            }
            // A parameter of this name stands for itself.
            let catches =
                |used: bool, name: &str| used && parameters.iter().all(|other| other.as_ref() != name);
            if catches(special.kwargs, "kwargs") {
                let rest = named.into_iter().map(|(name, value)| (Key::Str(name), value));
                this.store(&"kwargs".into(), Value::dict(rest.collect())?)?;
            } else if let Some((name, _)) = named.first() {
                return fail(match name.as_ref() {
                    "caller" => format!("macro {own_name} does not use `caller`, but was called with one"),
                    name => format!("macro {own_name} takes no keyword argument '{name}'"),
                });
            }
            if catches(special.varargs, "varargs") {
                this.store(&"varargs".into(), Value::tuple(positional.collect())?)?;
            } else if given > parameters.len() {
                let count = parameters.len();
                return fail(format!(
                    "macro {own_name} takes not more than {count} argument(s), {given} given"
                ));
            }
            let mut missing = Vec::new();
            for (index, (name, value)) in parameters.iter().zip(values).enumerate() {
                if value.is_none() {
                    missing.push(index);
                }
                let absent = || Value::undefined(format!("parameter '{name}' was not provided"));
                this.store(name, value.unwrap_or_else(absent))?;
            }
            // Defaults see all parameters, those after them too, and nothing outside of the same name.
            let first_default = parameters.len().saturating_sub(definition.defaults.len());
            for index in missing.into_iter().filter(|index| *index >= first_default) {
                let value = this.expr(&definition.defaults[index - first_default])?;
                this.store(&parameters[index], value)?;
            }
            this.block(&definition.body)
        })?;
        self.line = line;
        Ok(value)
    }

    // Generators.

    /// What a lazy filter returns.
    pub(crate) fn generator(&mut self, items: Vec<Value>, fault: Option<Fault>) -> Outcome<Value> {
        self.reserve((items.len() * size_of::<Value>() + size_of::<Generator>()) as u64)?;
        self.generators.push(Generator { items: items.into_iter(), fault });
        Ok(Value::Generator(self.generators.len() - 1))
    }

    /// Takes the next item of a generator.
    pub(crate) fn next_item(&mut self, generator: usize) -> Outcome<Option<Value>> {
        let rest = &mut self.generators[generator];
        match rest.items.next() {
            Some(item) => Ok(Some(item)),
            None => rest.fault.take().map_or(Ok(None), Err),
        }
    }

    /// Makes a generator of what `fill` collects. An error of the template's comes after what was collected before it.
    pub(crate) fn lazily(
        &mut self,
        fill: impl FnOnce(&mut Self, &mut Vec<Value>) -> Outcome<()>,
    ) -> Outcome<Value> {
        let depth = self.depth;
        let mut items = Vec::new();
        match fill(self, &mut items) {
            Ok(()) => self.generator(items, None),
            Err(fault @ Fault::Error(_)) => {
                self.depth = depth;
                self.generator(items, Some(fault))
            }
            Err(fault) => Err(fault),
        }
    }

    // Expressions.

    pub(crate) fn expr(&mut self, expr: &Expr) -> Outcome<Value> {
        self.enter()?;
        let value = self.expr_inner(expr)?;
        self.depth -= 1;
        Ok(value)
    }

    fn expr_inner(&mut self, expr: &Expr) -> Outcome<Value> {
        match expr {
            Expr::Const(value) => Ok(value.clone()),
            Expr::Var(name) => Ok(match self.lookup(name) {
                Some(value) => value.clone(),
                None => builtins::global(name)
                    .map_or_else(|| Value::undefined(format!("'{name}' is undefined")), Value::Function),
            }),
            Expr::Attr(object, name) => {
                let object = self.expr(object)?;
                self.attribute(&object, name)
            }
            Expr::Item(object, index) => {
                let object = self.expr(object)?;
                let index = self.expr(index)?;
                self.item(&object, &index)
            }
            Expr::Call(callee, args, line) => self.call(callee, args, *line, None),
            Expr::Filter(name, operand, args) => match operand {
                Some(operand) => {
                    let operand = self.expr(operand)?;
                    self.apply_filter(name, operand, args)
                }
                None => fail(format!("the filter {name} has nothing to work on")),
            },
            Expr::Test(name, operand, args) => {
                // Whether a test or filter exists may be asked about names; everything else is a value.
                let operand = self.expr(operand)?;
                let args = self.args(args)?;
                Ok(Value::Bool(builtins::test(self, name, &operand, args)?))
            }
            Expr::And(left, right) => {
                let left = self.expr(left)?;
                if left.is_true() { self.expr(right) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.expr(left)?;
                if left.is_true() { Ok(left) } else { self.expr(right) }
            }
            Expr::Not(operand) => Ok(Value::Bool(!self.expr(operand)?.is_true())),
            Expr::If(branches, otherwise) => {
                let [test, then] = branches.as_ref();
                if self.expr(test)?.is_true() {
                    return self.expr(then);
                }
                match otherwise {
                    Some(otherwise) => self.expr(otherwise),
                    None => Ok(Value::undefined("the inline if has no else")),
                }
            }
            other => self.compute(other),
        }
    }

    /// The rarer expressions, apart so that the stack frame of the common ones stays small.
    #[inline(never)]
    fn compute(&mut self, expr: &Expr) -> Outcome<Value> {
        match expr {
            Expr::List(items) => {
                let items = self.exprs(items)?;
                self.list(items)
            }
            Expr::Tuple(items) => {
                let items = self.exprs(items)?;
                self.reserve(items.len() as u64 * size_of::<Value>() as u64)?;
                Value::tuple(items)
            }
            Expr::Dict(entries) => {
                self.reserve(entries.len() as u64 * size_of::<(Key, Value)>() as u64)?;
                let mut map = IndexMap::with_capacity(entries.len());
                for (key, value) in entries {
                    let key = self.expr(key)?;
                    let key = self.new_key(&key)?;
                    map.insert(key, self.expr(value)?);
                }
                Value::dict(map)
            }
            Expr::Slice(object, bounds) => {
                let object = self.expr(object)?;
                let mut values = [const { None }; 3];
                for (slot, bound) in values.iter_mut().zip(bounds) {
                    *slot = match bound {
                        Some(bound) => match self.expr(bound)? {
                            Value::None => None,
                            value => Some(value.as_int().ok_or_else(|| {
                                Fault::Error(format!(
                                    "slice bounds must be integers, not {}",
                                    value.type_name()
                                ))
                            })?),
                        },
                        None => None,
                    };
                }
                self.slice(&object, values)
            }
            Expr::Neg(operand) => match self.expr(operand)? {
                Value::Float(number) => Ok(Value::Float(-number)),
                value => match value.as_int().and_then(i128::checked_neg) {
                    Some(number) => Ok(Value::Int(number)),
                    None => fail(format!("cannot negate {}", describe(&value))),
                },
            },
            Expr::Binary(operator, left, right) => {
                let left = self.expr(left)?;
                let right = self.expr(right)?;
                self.binary(*operator, left, right)
            }
            Expr::Concat(operands) => {
                let mut parts = Vec::with_capacity(operands.len());
                for operand in operands {
                    let value = self.expr(operand)?;
                    parts.push(self.string(&value)?);
                }
                self.reserve(parts.iter().map(|part| part.len() as u64).sum())?;
                Ok(Value::str(parts.concat()))
            }
            Expr::Compare(first, rest) => {
                let mut left = self.expr(first)?;
                for (comparison, right) in rest {
                    let right = self.expr(right)?;
                    if !self.compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            _ => fail("unexpected expression"),
        }
    }

    fn exprs(&mut self, exprs: &[Expr]) -> Outcome<Vec<Value>> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn args(&mut self, args: &[Arg]) -> Outcome<Args> {
        self.args_with(args, None)
    }

    /// The arguments of a call, and the body of a call block: in Python's order, so that `**` comes last.
    fn args_with(&mut self, args: &[Arg], caller: Option<Value>) -> Outcome<Args> {
        let mut result = Args::default();
        let mut caller = caller.map(|caller| ("caller".into(), caller));
        for arg in args {
            if let Arg::NamedSplat(_) = arg {
                result.named.extend(caller.take());
            }
            match arg {
                Arg::Positional(expr) => result.positional.push(self.expr(expr)?),
                Arg::Named(name, expr) => result.named.push((name.clone(), self.expr(expr)?)),
                Arg::Splat(expr) => {
                    let value = self.expr(expr)?;
                    result.positional.extend(self.iterate(&value)?);
                }
                Arg::NamedSplat(expr) => match self.expr(expr)? {
                    Value::Dict(dict) => {
                        self.reserve(dict.map.len() as u64 * size_of::<(Name, Value)>() as u64)?;
                        for (key, value) in &dict.map {
                            let Key::Str(name) = key else {
                                return fail("names of arguments must be strings");
                            };
                            if result.named.iter().any(|(other, _)| other == name) {
                                return fail(format!("the argument '{name}' is given twice"));
                            }
                            result.named.push((name.clone(), value.clone()));
                        }
                    }
                    other => return fail(format!("** needs a dict, not {}", describe(&other))),
                },
            }
        }
        result.named.extend(caller);
        Ok(result)
    }

    fn apply_filter(&mut self, name: &str, operand: Value, args: &[Arg]) -> Outcome<Value> {
        let args = self.args(args)?;
        builtins::filter(self, name, operand, args)
    }

    /// Applies the filters of a `{% set %}` or `{% filter %}` block, innermost first.
    fn filter_captured(&mut self, filter: &Expr, value: Value) -> Outcome<Value> {
        self.enter()?;
        let Expr::Filter(name, operand, args) = filter else { return fail("a filter is expected here") };
        let value = match operand {
            Some(inner) => self.filter_captured(inner, value)?,
            None => value,
        };
        let value = self.apply_filter(name, value, args)?;
        self.depth -= 1;
        Ok(value)
    }

    fn call(&mut self, callee: &Expr, args: &[Arg], line: u32, caller: Option<Value>) -> Outcome<Value> {
        let callee = self.expr(callee)?;
        let args = self.args_with(args, caller)?;
        self.line = line.max(1);
        self.call_value(&callee, args)
    }

    fn call_value(&mut self, callee: &Value, args: Args) -> Outcome<Value> {
        match callee {
            Value::Function(name) => builtins::call(self, name, args),
            Value::Method(bound) => builtins::method(self, &bound.0, &bound.1, args),
            Value::Macro(index, definition) => self.call_macro(*index, definition, args),
            Value::Joiner(index) => {
                let [] = args.take("joiner", [])?;
                let joiner = &mut self.joiners[*index];
                let first = !std::mem::replace(&mut joiner.used, true);
                Ok(if first { Value::str("") } else { joiner.separator.clone() })
            }
            Value::Loop { slot, serial } => {
                let [iterable] = args.take("loop", ["iterable"])?;
                let Some(state) = self.loops.get(*slot).filter(|state| state.serial == *serial) else {
                    return fail("this loop has ended");
                };
                if !state.definition.recursive {
                    return fail("only a loop that is marked as recursive can be called");
                }
                let (definition, scope, depth) = (state.definition.clone(), state.scope, state.depth + 1);
                let iterable = required(iterable, "loop")?;
                let (_, value) = self.capture(scope, |this| this.run_loop(&definition, &iterable, depth))?;
                Ok(value)
            }
            Value::Undefined(reason) => fail(reason.as_ref()),
            other => fail(format!("{} cannot be called", describe(other))),
        }
    }
}

pub(super) fn check_namespace_name(name: &str) -> Outcome<()> {
    if name.starts_with('_') {
        return fail(format!("attributes of a namespace cannot start with an underscore: '{name}'"));
    }
    Ok(())
}

/// A value for error messages: short, whatever it is.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Str(text) if text.chars().count() <= 40 => format!("{text:?}"),
        Value::Int(number) => number.to_string(),
        Value::None | Value::Bool(_) | Value::Float(_) => {
            let mut out = String::new();
            value.repr(&mut out);
            out
        }
        other => format!("a {}", other.type_name()),
    }
}
