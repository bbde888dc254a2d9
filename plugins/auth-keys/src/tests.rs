//! Credentials in every shape.

use tollgate_sdk::{Authenticate, Decision, Plugin, Principal, Refusal, RefusalKind, testing};

use super::{AuthKeys, Config};
use tollgate_sdk::credentials::LookupError;

const KEY: &str = "tg_test-key.1~a+b/c==";

fn plugin(config: &str) -> AuthKeys {
    let config: Config = serde_json::from_str(config).expect("the config is well-formed");
    AuthKeys::new(config).expect("the config is accepted")
}

fn decide(config: &str, headers: &[(&str, &str)]) -> Decision {
    testing::answer_lookup(KEY, Ok(Principal::user("alice")));
    plugin(config).authenticate(testing::head(headers))
}

fn refused(decision: Decision) -> Refusal {
    match decision {
        Decision::Refuse(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[test]
fn a_known_key_becomes_its_principal_in_either_header() {
    for (name, value) in [
        ("authorization", bearer(KEY)),
        ("authorization", format!("bEaReR   {KEY}")),
        ("authorization", format!(" Bearer {KEY}\t")),
        ("x-api-key", KEY.to_owned()),
        ("x-api-key", format!(" {KEY} ")),
    ] {
        let decision = decide("{}", &[(name, &value)]);
        assert!(matches!(&decision, Decision::Identity(who) if who.id == "alice"), "{name}: {value:?} gave {decision:?}");
    }
}

#[test]
fn no_credential_of_ours_abstains() {
    for headers in [
        &[] as &[(&str, &str)],
        &[("authorization", "Basic dXNlcjpwYXNz")],
        &[("authorization", "")],
        &[("authorization", "BearerX abc")],
        &[("cookie", "key=abc")],
    ] {
        assert!(matches!(decide("{}", headers), Decision::Abstain), "{headers:?}");
    }
}

#[test]
fn a_place_that_is_not_accepted_is_not_read() {
    let headers = [("authorization", bearer(KEY))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert!(matches!(decide(r#"{"accept":["x-api-key"]}"#, &headers), Decision::Abstain));
    assert!(matches!(decide(r#"{"accept":["bearer"]}"#, &[("x-api-key", KEY)]), Decision::Abstain));
}

#[test]
fn the_same_key_twice_is_one_key_and_two_keys_are_refused() {
    let token = bearer(KEY);
    assert!(matches!(decide("{}", &[("authorization", &token), ("x-api-key", KEY)]), Decision::Identity(_)));
    let refusal = refused(decide("{}", &[("authorization", &token), ("x-api-key", "other")]));
    assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Invalid, "conflicting_keys"));
}

#[test]
fn a_malformed_key_is_refused_unseen() {
    let long = "k".repeat(513);
    for (name, value) in [
        ("authorization", "Bearer".to_owned()),
        ("authorization", "Bearer ".to_owned()),
        ("authorization", "Bearer ===".to_owned()),
        ("authorization", "Bearer a b".to_owned()),
        ("authorization", "Bearer a,b".to_owned()),
        ("authorization", "Bearer schlüssel".to_owned()),
        ("authorization", bearer(&long)),
        ("x-api-key", String::new()),
        ("x-api-key", "a b".to_owned()),
        ("x-api-key", "a\u{7f}".to_owned()),
        ("x-api-key", long.clone()),
    ] {
        let refusal = refused(decide("{}", &[(name, &value)]));
        assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Unauthenticated, "invalid_key"), "{name}: {value:?}");
    }
    let token = bearer(KEY);
    let refusal = refused(decide("{}", &[("authorization", &token), ("authorization", &token)]));
    assert_eq!(refusal.code, "invalid_key");
}

/// P-A5: whatever the store says but a principal, nobody is let in.
#[test]
fn every_lookup_error_refuses_with_its_code() {
    for (error, kind, code) in [
        (LookupError::Unknown, RefusalKind::Unauthenticated, "invalid_api_key"),
        (LookupError::Expired(1_000), RefusalKind::Unauthenticated, "expired_key"),
        (LookupError::Revoked, RefusalKind::Unauthenticated, "revoked_key"),
        (LookupError::Unavailable, RefusalKind::Unavailable, "key_store_unavailable"),
    ] {
        testing::answer_lookup("secret-key", Err(error));
        let refusal = refused(plugin("{}").authenticate(testing::head(&[("x-api-key", "secret-key")])));
        assert_eq!((refusal.kind, refusal.code.as_str()), (kind, code));
        let said = format!("{} {} {:?}", refusal.message, refusal.detail, testing::logged());
        assert!(!said.contains("secret-key"), "the key must not be told: {said}");
    }
}

#[test]
fn the_config_is_strict() {
    assert!(serde_json::from_str::<Config>(r#"{"acept":["bearer"]}"#).is_err());
    assert!(serde_json::from_str::<Config>(r#"{"accept":["cookie"]}"#).is_err());
    let none: Config = serde_json::from_str(r#"{"accept":[]}"#).expect("well-formed");
    assert!(AuthKeys::new(none).expect_err("no place is no way in").contains("x-api-key"));
}

#[test]
fn golden_cases() {
    tollgate_sdk::cases::check::<AuthKeys>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
}
