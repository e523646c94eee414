//! Which of its special names the body of a macro uses.
//!
//! Jinja gives a macro `varargs`, `kwargs` and `caller` only where its body reads them, and refuses surplus arguments where it
//! does not. What counts as reading is decided by the order of the text, which this file follows: `find_undeclared` in
//! Jinja's compiler.

use super::parse::{Arg, Block, Expr, Macro, Stmt, Target};

/// The names a macro's body reads before anything in it assigns them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Special {
    pub(crate) caller: bool,
    pub(crate) kwargs: bool,
    pub(crate) varargs: bool,
}

/// Finds the special names that a block uses.
pub(crate) fn special(body: &Block) -> Special {
    let mut visitor = Visitor::default();
    visitor.block(body);
    visitor.used
}

#[derive(Default)]
struct Visitor {
    used: Special,
    assigned: Special,
}

impl Visitor {
    fn load(&mut self, name: &str) {
        match name {
            "caller" => self.used.caller |= !self.assigned.caller,
            "kwargs" => self.used.kwargs |= !self.assigned.kwargs,
            "varargs" => self.used.varargs |= !self.assigned.varargs,
            _ => {}
        }
    }

    fn store(&mut self, name: &str) {
        match name {
            "caller" => self.assigned.caller = true,
            "kwargs" => self.assigned.kwargs = true,
            "varargs" => self.assigned.varargs = true,
            _ => {}
        }
    }

    fn block(&mut self, block: &Block) {
        for (_, stmt) in block {
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Raw(_) | Stmt::Break | Stmt::Continue => {}
            Stmt::Emit(expr) | Stmt::Do(expr) => self.expr(expr),
            Stmt::For(node) => {
                self.target(&node.target);
                self.expr(&node.iter);
                self.block(&node.body);
                self.block(&node.otherwise);
                self.exprs(&node.filter);
            }
            Stmt::If { test, then, other } => {
                self.expr(test);
                self.block(then);
                self.block(other);
            }
            Stmt::With { assignments, body } => {
                for (target, _) in assignments {
                    self.target(target);
                }
                for (_, value) in assignments {
                    self.expr(value);
                }
                self.block(body);
            }
            Stmt::Set { target, value } => {
                self.target(target);
                self.expr(value);
            }
            Stmt::SetBlock { target, filter, body } => {
                self.target(target);
                self.exprs(filter);
                self.block(body);
            }
            Stmt::FilterBlock { filter, body } => {
                self.block(body);
                self.expr(filter);
            }
            Stmt::Macro(_, node) => self.macro_(node),
            Stmt::CallBlock { call, caller } => {
                self.expr(call);
                self.macro_(caller);
            }
        }
    }

    fn macro_(&mut self, node: &Macro) {
        node.parameters.iter().for_each(|name| self.store(name));
        self.exprs(&node.defaults);
        self.block(&node.body);
    }

    fn target(&mut self, target: &Target) {
        match target {
            Target::Name(name) => self.store(name),
            Target::Attribute(..) => {}
            Target::Tuple(targets) => targets.iter().for_each(|target| self.target(target)),
        }
    }

    fn exprs<'a>(&mut self, exprs: impl IntoIterator<Item = &'a Expr>) {
        exprs.into_iter().for_each(|expr| self.expr(expr));
    }

    fn args(&mut self, args: &[Arg]) {
        for arg in args {
            match arg {
                Arg::Positional(expr) | Arg::Named(_, expr) | Arg::Splat(expr) | Arg::NamedSplat(expr) => {
                    self.expr(expr);
                }
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Const(_) => {}
            Expr::Var(name) => self.load(name),
            Expr::List(items) | Expr::Tuple(items) | Expr::Concat(items) => self.exprs(items),
            Expr::Dict(entries) => {
                for (key, value) in entries {
                    self.expr(key);
                    self.expr(value);
                }
            }
            Expr::Attr(operand, _) | Expr::Not(operand) | Expr::Neg(operand) => self.expr(operand),
            Expr::Item(left, right)
            | Expr::And(left, right)
            | Expr::Or(left, right)
            | Expr::Binary(_, left, right) => {
                self.expr(left);
                self.expr(right);
            }
            Expr::Slice(operand, bounds) => {
                self.expr(operand);
                self.exprs(bounds.iter().flatten().map(Box::as_ref));
            }
            Expr::Compare(first, rest) => {
                self.expr(first);
                self.exprs(rest.iter().map(|(_, operand)| operand));
            }
            Expr::If(branches, otherwise) => {
                self.exprs(branches.as_ref());
                self.exprs(otherwise.as_deref());
            }
            Expr::Filter(_, operand, args) => {
                self.exprs(operand.as_deref());
                self.args(args);
            }
            Expr::Test(_, operand, args) | Expr::Call(operand, args, _) => {
                self.expr(operand);
                self.args(args);
            }
        }
    }
}
