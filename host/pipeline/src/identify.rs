//! Who asks: the listener's authenticators in order; the first that does not abstain decides.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tollgate_domain::{Refusal, RefusalKind, RequestHead, Shares};
use tollgate_plugins::Decision;

use crate::chain::Chain;
use crate::record::Timings;
use crate::{Generation, RequestIds, Session, trace};

pub(crate) async fn identify(
    generation: Arc<Generation>,
    mut chain: Chain,
    head: RequestHead,
    ids: RequestIds,
    (encoders, bodies): (Arc<Semaphore>, Arc<Shares>),
) -> Result<Session, Refusal> {
    let mut timings = Timings::start();
    let _stage = trace::stage(&ids.span, "identify");
    let Some(listener) = generation.listeners.get(&head.listener) else {
        return Err(Refusal::unavailable("no_policy", "This address takes no requests at present.", 1)
            .detail(format!("generation {} has no listener {}", generation.number, head.listener)));
    };
    for plugin in &listener.authenticators {
        match chain.authenticate(plugin, head.clone()).await? {
            Decision::Abstain => {}
            Decision::Refuse(refusal) => return Err(refusal),
            Decision::Identity(principal) => {
                chain.identified(&principal.tenant)?;
                timings.lap("identify");
                let listener = head.listener;
                let (memory, keep_alive) = (None, None);
                return Ok(Session {
                    generation,
                    principal,
                    listener,
                    ids,
                    chain,
                    timings,
                    encoders,
                    bodies,
                    memory,
                    keep_alive,
                });
            }
        }
    }
    let message = "A key is needed: send `Authorization: Bearer KEY` or `X-API-Key: KEY`.";
    Err(Refusal::new(RefusalKind::Unauthenticated, "missing_key", message))
}
