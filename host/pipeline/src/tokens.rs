//! What a client says of single tokens: which are favoured, and whether it is told how likely they were. Plugins have no word for
//! either, so the host keeps both for the model.

use tollgate_domain::{ChatRequest, Parameters, Refusal};
use tollgate_plugins::Hook;

use crate::Route;

/// What is said of tokens, while plugins have the request.
pub(crate) struct OfTokens {
    logit_bias: Vec<(u32, f32)>,
    logprobs: Option<u8>,
}

impl OfTokens {
    pub(crate) fn take(request: &mut ChatRequest) -> Self {
        let Parameters { logit_bias, logprobs, .. } = &mut request.parameters;
        OfTokens { logit_bias: std::mem::take(logit_bias), logprobs: logprobs.take() }
    }

    pub(crate) fn put_back(self, request: &mut ChatRequest) {
        request.parameters.logit_bias = self.logit_bias;
        request.parameters.logprobs = self.logprobs;
    }
}

/// Log-probabilities are of the tokens that the model said. Where a plugin may rewrite the reply they would be of other words than
/// the client reads, or give away what was taken out.
pub(crate) fn may_be_told(route: &Route, request: &ChatRequest) -> Result<(), Refusal> {
    let what = [(Hook::FilterReply, "filter replies"), (Hook::Format, "format replies")];
    let found = what.into_iter().find(|(hook, _)| route.with(*hook).next().is_some());
    match found.filter(|_| request.parameters.logprobs.is_some()) {
        None => Ok(()),
        Some((_, what)) => {
            let message = format!("`logprobs` cannot be used here: the route `{}` has plugins that {what}.", route.id);
            Err(Refusal::invalid("logprobs_conflict", message).field("logprobs"))
        }
    }
}
