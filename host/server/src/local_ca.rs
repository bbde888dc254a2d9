//! The first start: a certificate authority of this machine's own, and a server certificate from it.
//!
//! It is for a client on the same machine that is given `ca.pem`. The authority may only vouch for loopback
//! names, so that trusting it costs nothing. A gateway that is reached from elsewhere has a real certificate
//! in its configuration and does not use this.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, PublicKeyData as _, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::tls::CertificatePaths;

const AUTHORITY_DAYS: i64 = 3650;
/// Clients refuse server certificates that live for more than 825 days; this is well below.
const SERVER_DAYS: i64 = 397;
/// A server certificate is replaced when less than this is left of it.
const RENEWAL_DAYS: i64 = 30;
/// Certificates begin a little in the past, for clocks that run behind.
const CLOCK_SKEW: Duration = Duration::hours(1);

const HOST_NAME: &str = "localhost";
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The files of a local authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCa {
    /// The authority's certificate: what clients are told to trust.
    pub authority: PathBuf,
    /// The server's certificate and key.
    pub server: CertificatePaths,
}

/// Why there is no local authority.
#[derive(Debug, thiserror::Error)]
pub enum LocalCaError {
    /// A file or the directory could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file of the authority is missing or holds something else. It is never replaced: clients trust it.
    #[error("{path} is not usable ({reason}); restore it, or remove the whole directory to begin anew")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// The system has no randomness to name an authority with.
    #[error("no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl LocalCa {
    /// Makes what is missing in `directory` (mode 0700, files 0600): the authority once, the server
    /// certificate when there is none, when less than 30 days are left of it at `now`, or when it is not for
    /// exactly `localhost`, 127.0.0.1 and ::1 or not from this authority.
    ///
    /// # Errors
    /// [`LocalCaError`] names the file. An authority that exists is never overwritten.
    pub fn ensure(directory: &Path, now: OffsetDateTime) -> Result<Self, LocalCaError> {
        make_directory(directory)?;
        let ca = Self {
            authority: directory.join("ca.pem"),
            server: CertificatePaths { certificate: directory.join("server.pem"), key: directory.join("server.key") },
        };
        let key_path = directory.join("ca.key");
        if !ca.authority.exists() {
            make_authority(&ca.authority, &key_path, now)?;
        }
        let authority = read_certificate(&ca.authority)?;
        let authority = parse(&ca.authority, &authority)?;
        if !serves(&ca.server, &authority, now) {
            issue_server(&ca, &authority, &key_path, now)?;
        }
        Ok(ca)
    }
}

/// The key is written before the certificate: an authority exists once clients could trust it. A key without
/// a certificate is left from a start that was cut short, and is used.
fn make_authority(path: &Path, key_path: &Path, now: OffsetDateTime) -> Result<(), LocalCaError> {
    let key = if key_path.exists() {
        read_key(key_path)?
    } else {
        let key = KeyPair::generate()?;
        write_atomically(key_path, key.serialize_pem().as_bytes())?;
        key
    };
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    let name = format!("Tollgate local CA {:08x}", u32::from_be_bytes(random));
    let mut params = authority_params(&name);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(AUTHORITY_DAYS);
    write_atomically(path, params.self_signed(&key)?.pem().as_bytes())
}

/// What the authority is, but for its dates. A certificate is issued from the same description again.
fn authority_params(name: &str) -> CertificateParams {
    let mut permitted = vec![GeneralSubtree::DnsName(HOST_NAME.to_owned())];
    permitted.extend(ADDRESSES.map(|address| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
    }));
    let mut params = CertificateParams::default();
    set_common_name(&mut params, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: Vec::new() });
    params
}

fn issue_server(ca: &LocalCa, authority: &X509Certificate<'_>, key_path: &Path, now: OffsetDateTime) -> Result<(), LocalCaError> {
    let unusable = |path: &Path, reason: &str| LocalCaError::Unusable { path: path.to_owned(), reason: reason.to_owned() };
    let authority_key = read_key(key_path)?;
    if authority_key.subject_public_key_info() != authority.public_key().raw {
        return Err(unusable(key_path, "it is not the key of ca.pem"));
    }
    let name = authority.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = name.ok_or_else(|| unusable(&ca.authority, "it has no common name"))?;
    let issuer = Issuer::new(authority_params(name), authority_key);

    let mut params = CertificateParams::new(vec![HOST_NAME.to_owned()])?;
    params.subject_alt_names.extend(ADDRESSES.map(SanType::IpAddress));
    set_common_name(&mut params, HOST_NAME);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(SERVER_DAYS);
    // Strict clients want a certificate to say that it is none of an authority, and both key identifiers.
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    write_atomically(&ca.server.key, key.serialize_pem().as_bytes())?;
    write_atomically(&ca.server.certificate, certificate.pem().as_bytes())?;
    tracing::info!(certificate = %ca.server.certificate.display(), days = SERVER_DAYS, "server certificate issued");
    Ok(())
}

fn set_common_name(params: &mut CertificateParams, name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}

/// Whether the server's pair is there, fits together and is good for a while. Whatever is wrong with it, the
/// cure is a new one.
fn serves(server: &CertificatePaths, authority: &X509Certificate<'_>, now: OffsetDateTime) -> bool {
    let Ok(der) = read_certificate(&server.certificate) else { return false };
    let Ok(certificate) = parse(&server.certificate, &der) else { return false };
    let Ok(key) = read_key(&server.key) else { return false };
    let renewal = (now + Duration::days(RENEWAL_DAYS)).unix_timestamp();
    certificate.issuer().as_raw() == authority.subject().as_raw()
        && certificate.public_key().raw == key.subject_public_key_info()
        && certificate.validity().not_before.timestamp() <= now.unix_timestamp()
        && certificate.validity().not_after.timestamp() > renewal
        && names_loopback(&certificate)
}

fn names_loopback(certificate: &X509Certificate<'_>) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    let names = &names.value.general_names;
    let has_address = |address: IpAddr| {
        names.iter().any(|name| match (name, address) {
            (GeneralName::IPAddress(bytes), IpAddr::V4(address)) => *bytes == address.octets(),
            (GeneralName::IPAddress(bytes), IpAddr::V6(address)) => *bytes == address.octets(),
            _ => false,
        })
    };
    names.len() == ADDRESSES.len() + 1
        && names.iter().any(|name| matches!(name, GeneralName::DNSName(HOST_NAME)))
        && ADDRESSES.into_iter().all(has_address)
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, LocalCaError> {
    let pem = fs::read(path).map_err(|source| LocalCaError::File { path: path.to_owned(), source })?;
    CertificateDer::from_pem_slice(&pem)
        .map_err(|error| LocalCaError::Unusable { path: path.to_owned(), reason: error.to_string() })
}

fn parse<'a>(path: &Path, der: &'a CertificateDer<'static>) -> Result<X509Certificate<'a>, LocalCaError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(LocalCaError::Unusable { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn read_key(path: &Path) -> Result<KeyPair, LocalCaError> {
    let pem = fs::read_to_string(path).map_err(|source| LocalCaError::File { path: path.to_owned(), source })?;
    KeyPair::from_pem(&pem).map_err(|error| LocalCaError::Unusable { path: path.to_owned(), reason: error.to_string() })
}

fn make_directory(path: &Path) -> Result<(), LocalCaError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // It may have been there, and open to others.
        fs::set_permissions(path, Permissions::from_mode(0o700))
    };
    make().map_err(|source| LocalCaError::File { path: path.to_owned(), source })
}

/// Writes a file that is there whole or not at all, readable by its owner alone.
fn write_atomically(path: &Path, content: &[u8]) -> Result<(), LocalCaError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself has to survive a power cut.
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().map_err(|source| LocalCaError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
