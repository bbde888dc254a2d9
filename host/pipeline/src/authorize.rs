//! May this principal do this? A pure function over data.

use tollgate_domain::{Principal, Refusal, RefusalKind};
use tollgate_models::Task;

/// What a model or route is asked for with.
const CHAT: &str = "chat";
/// What models are listed with; `chat` will do as well.
const MODELS: &str = "models";

/// The same answer whether a model is missing or forbidden: names are not to be probed.
pub(crate) fn no_such_model(name: &str) -> Refusal {
    let shown = name.chars().filter(|c| !c.is_control()).take(96).collect::<String>();
    Refusal::new(RefusalKind::NotFound, "model_not_found", format!("There is no model `{shown}` that this key may use."))
        .field("model")
}

/// Whether `principal` may see which models there are.
///
/// # Errors
/// It has neither scope.
pub(crate) fn may_list(principal: &Principal) -> Result<(), Refusal> {
    if principal.has_scope(MODELS) || principal.has_scope(CHAT) {
        return Ok(());
    }
    Err(Refusal::new(RefusalKind::Forbidden, "missing_scope", "This key has no scope `models`."))
}

/// Whether `principal` may chat at all. Asked before any name is looked at, so that names cannot be probed without the scope.
///
/// # Errors
/// The scope is missing.
pub(crate) fn may_chat(principal: &Principal) -> Result<(), Refusal> {
    if principal.has_scope(CHAT) {
        return Ok(());
    }
    Err(Refusal::new(RefusalKind::Forbidden, "missing_scope", "This key has no scope `chat`."))
}

/// Whether `principal` may use a model known by `names`, or what it `asked` for.
///
/// # Errors
/// It is not among the principal's models.
pub(crate) fn may_use<'a>(principal: &Principal, asked: &'a str, names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    if principal.may_use(std::iter::once(asked).chain(names)) { Ok(()) } else { Err(no_such_model(asked)) }
}

/// Whether a model whose task `is` this one can be `asked` for that one.
///
/// # Errors
/// They are two.
pub(crate) fn fits(asked: Task, is: Task) -> Result<(), Refusal> {
    if asked == is {
        return Ok(());
    }
    let message = match is {
        Task::Generate => "This model generates text: it answers at `/v1/chat/completions`.",
        Task::Embed => "This model makes embeddings: it answers at `/v1/embeddings`.",
        Task::Rerank => "This model ranks documents: it answers at `/v1/rerank`.",
    };
    Err(Refusal::invalid("wrong_task", message).field("model"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(scopes: &[&str], models: &[&str]) -> Principal {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Principal {
            id: "p".to_owned(),
            tenant: "t".to_owned(),
            roles: Vec::new(),
            scopes: list(scopes),
            models: list(models),
            default_model: None,
            attributes: Vec::new(),
        }
    }

    #[test]
    fn listing_needs_a_scope() {
        assert!(may_list(&principal(&["models"], &[])).is_ok() && may_list(&principal(&["chat"], &[])).is_ok());
        assert!(may_list(&principal(&["other"], &["*"])).is_err());
    }

    #[test]
    fn a_model_has_one_task_and_says_where() {
        let tasks = [(Task::Generate, "chat/completions"), (Task::Embed, "embeddings"), (Task::Rerank, "rerank")];
        for (asked, _) in tasks {
            for (is, path) in tasks {
                match fits(asked, is) {
                    Ok(()) => assert_eq!(asked, is),
                    Err(refusal) => {
                        assert_ne!(asked, is);
                        assert!(refusal.code == "wrong_task" && refusal.message.contains(&format!("/v1/{path}")), "{refusal}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_cell_of_scope_and_model() {
        let demo = || ["demo", "default"].into_iter();
        for (scopes, models, asked, allowed) in [
            (&["chat"][..], &["*"][..], "demo", true),
            (&["chat"], &["demo"], "demo", true),
            (&["chat"], &["demo"], "default", true),
            (&["chat"], &["decision"], "decision", true),
            (&["chat"], &["other"], "demo", false),
            (&["chat"], &[], "demo", false),
            (&["models"], &["*"], "demo", false),
            (&[], &["*"], "demo", false),
            (&["admin"], &["*"], "demo", true),
        ] {
            let who = principal(scopes, models);
            let is_allowed = may_chat(&who).and_then(|()| may_use(&who, asked, demo())).is_ok();
            assert_eq!(is_allowed, allowed, "{scopes:?} {models:?} {asked}");
        }
    }
}
