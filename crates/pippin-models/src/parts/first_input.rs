use pippin_tensor::{Backend, Linear, TensorError};

use super::{Input, Needs, Pass, Place};
use crate::Result;
use crate::source::Source;

/// What entered the first layer, again: a connection past all layers before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstInput;

/// It has no weights.
#[derive(Debug)]
pub(crate) struct FirstInputWeights<L, V>(std::marker::PhantomData<(L, V)>);

impl FirstInput {
    pub(crate) fn validate(&self) -> Result<()> {
        Ok(())
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs { recalls: true, ..Needs::default() }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        _: &mut S,
        _: &str,
        _: usize,
    ) -> Result<FirstInputWeights<S::Linear, S::Vector>> {
        Ok(FirstInputWeights(std::marker::PhantomData))
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        _: &FirstInputWeights<Linear<B>, B::Tensor>,
        _: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let first = pass.first_input.as_ref();
        let first =
            first.ok_or_else(|| TensorError::shape("first_input", "what entered the first layer", "none"))?;
        Ok(Some(match input.residual {
            Some(residual) => pass.backend.add(residual, first)?,
            None => first.clone(),
        }))
    }
}
