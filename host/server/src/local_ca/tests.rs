//! What a first start leaves behind, and what later starts change.

use std::collections::BTreeMap;

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn a_first_start_makes_four_private_files_and_a_second_changes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data/tls");
    let ca = LocalCa::ensure(&directory, now()).unwrap();
    let first = contents(&directory);
    assert_eq!(first.keys().collect::<Vec<_>>(), ["ca.key", "ca.pem", "server.key", "server.pem"]);
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    for name in first.keys() {
        let mode = fs::metadata(directory.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(LocalCa::ensure(&directory, now()).unwrap(), ca);
    assert_eq!(contents(&directory), first);
}

#[test]
fn the_certificates_say_what_strict_clients_want() {
    let directory = tempfile::tempdir().unwrap();
    let ca = LocalCa::ensure(directory.path(), now()).unwrap();
    let der = read_certificate(&ca.authority).unwrap();
    let authority = parse(&ca.authority, &der).unwrap();
    let constraints = authority.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = authority.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign());
    let names = authority.name_constraints().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(names.value.permitted_subtrees.as_ref().unwrap().len(), 3);

    let der = read_certificate(&ca.server.certificate).unwrap();
    let server = parse(&ca.server.certificate, &der).unwrap();
    assert!(!server.is_ca());
    assert!(server.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert!(names_loopback(&server));
    let validity = server.validity();
    assert!(validity.not_after.timestamp() - validity.not_before.timestamp() < 825 * 86_400);
    // The authority key identifier and the subject key identifier (RFC 5280, 4.2.1.1 and 4.2.1.2).
    let extensions: Vec<String> = server.iter_extensions().map(|extension| extension.oid.to_id_string()).collect();
    assert!(extensions.iter().any(|oid| oid == "2.5.29.35"), "{extensions:?}");
    assert!(extensions.iter().any(|oid| oid == "2.5.29.14"), "{extensions:?}");
}

#[test]
fn a_certificate_near_its_end_is_replaced_and_the_authority_stays() {
    // P-U7.
    let directory = tempfile::tempdir().unwrap();
    LocalCa::ensure(directory.path(), now()).unwrap();
    let first = contents(directory.path());
    let unchanged = now() + Duration::days(SERVER_DAYS - RENEWAL_DAYS - 1);
    LocalCa::ensure(directory.path(), unchanged).unwrap();
    assert_eq!(contents(directory.path()), first);

    let late = now() + Duration::days(SERVER_DAYS - RENEWAL_DAYS + 1);
    LocalCa::ensure(directory.path(), late).unwrap();
    let second = contents(directory.path());
    assert_eq!(second["ca.pem"], first["ca.pem"]);
    assert_eq!(second["ca.key"], first["ca.key"]);
    assert_ne!(second["server.pem"], first["server.pem"]);
    LocalCa::ensure(directory.path(), late).unwrap();
    assert_eq!(contents(directory.path()), second);
}

#[test]
fn a_server_certificate_that_is_lost_broken_or_foreign_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let ca = LocalCa::ensure(directory.path(), now()).unwrap();
    let authority = fs::read(&ca.authority).unwrap();
    let other = tempfile::tempdir().unwrap();
    let foreign = LocalCa::ensure(other.path(), now()).unwrap();
    let breaks: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&ca.server.certificate).unwrap(),
        &|| fs::write(&ca.server.certificate, "half").unwrap(),
        &|| fs::copy(&foreign.server.key, &ca.server.key).map(|_| ()).unwrap(),
        &|| {
            fs::copy(&foreign.server.key, &ca.server.key).unwrap();
            fs::copy(&foreign.server.certificate, &ca.server.certificate).unwrap();
        },
    ];
    for (index, break_it) in breaks.iter().enumerate() {
        break_it();
        LocalCa::ensure(directory.path(), now()).unwrap();
        let der = read_certificate(&ca.authority).unwrap();
        assert!(serves(&ca.server, &parse(&ca.authority, &der).unwrap(), now()), "case {index}");
        assert_eq!(fs::read(&ca.authority).unwrap(), authority);
    }
}

#[test]
fn an_authority_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let ca = LocalCa::ensure(directory.path(), now()).unwrap();
    fs::write(&ca.authority, "garbage").unwrap();
    let error = LocalCa::ensure(directory.path(), now()).unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");
    assert_eq!(fs::read_to_string(&ca.authority).unwrap(), "garbage");

    let directory = tempfile::tempdir().unwrap();
    let ca = LocalCa::ensure(directory.path(), now()).unwrap();
    fs::remove_file(directory.path().join("ca.key")).unwrap();
    LocalCa::ensure(directory.path(), now()).expect("nothing has to be issued, so the key is not needed");
    fs::remove_file(&ca.server.certificate).unwrap();
    let error = LocalCa::ensure(directory.path(), now()).unwrap_err();
    assert!(error.to_string().contains("ca.key"), "{error}");
}

#[test]
fn a_start_cut_short_after_the_key_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let ca = LocalCa::ensure(directory.path(), now()).unwrap();
    fs::remove_file(&ca.authority).unwrap();
    LocalCa::ensure(directory.path(), now()).unwrap();
    let der = read_certificate(&ca.authority).unwrap();
    assert!(serves(&ca.server, &parse(&ca.authority, &der).unwrap(), now()));
}
