//! What each kind of source offers, and what of it is taken.

use super::server::Fault;
use super::*;

const TREE: &str = "/api/models/o/n/tree/main?recursive=true";

async fn hub(server: &Server, text: &str, dir: &Path) -> Result<Fetched, PullError> {
    pull_with(settings(server), &text.parse().unwrap(), dir).await
}

fn paths(fetched: &Fetched) -> Vec<&str> {
    fetched.files.iter().map(|(path, ..)| path.as_str()).collect()
}

#[tokio::test]
async fn a_folder_brings_its_manifest_and_its_signature() {
    let model = noise(31, 1000);
    let server = serve(&model, true);
    let dir = tempfile::tempdir().unwrap();
    server.put("/m/manifest.json.sig", b"c2ln");
    let fetched = pull(&server, "/m/", dir.path()).await.unwrap();
    assert_eq!(fetched.manifest, Some((manifest(&model, true), Some(b"c2ln".to_vec()))));
    assert_eq!((fetched.suggested_name.as_str(), &fetched.zip), ("tiny", &None));
    drop(fetched);

    server.fail("/m/manifest.json.sig", [Fault::Status(403)]);
    let fetched = pull(&server, "/m/", dir.path()).await.unwrap();
    assert_eq!(fetched.manifest, Some((manifest(&model, true), None)), "an object store says 403 for what it does not have");
    drop(fetched);

    server.put("/m/manifest.json", b"{}");
    let error = pull(&server, "/m/", dir.path()).await.unwrap_err();
    assert!(matches!(error, PullError::Manifest { .. }), "{error}");
    server.put("/m/manifest.json", &vec![b' '; (8 << 20) + 1]);
    let error = pull(&server, "/m/", dir.path()).await.unwrap_err();
    assert!(matches!(error, PullError::TooBig { .. }), "{error}");
}

#[tokio::test]
async fn a_zip_is_one_file() {
    let bytes = noise(32, 1000);
    let server = Server::start();
    server.put("/a/My_Model.zip", &bytes);
    let dir = tempfile::tempdir().unwrap();
    let fetched = pull(&server, "/a/My_Model.zip", dir.path()).await.unwrap();
    assert_model(&fetched, &bytes);
    assert_eq!(fetched.zip, Some(fetched.folder.join("My_Model.zip")));
    assert_eq!(fetched.suggested_name.as_str(), "my_model");
}

#[tokio::test]
async fn a_repository_is_read_page_by_page_and_its_digests_hold() {
    let weights = noise(33, 3000);
    let server = Server::start();
    let entry = |path: &str, bytes: &[u8], oid: Option<&Digest>| {
        let lfs = oid.map(|oid| json!({"oid": oid.to_string(), "size": bytes.len(), "pointerSize": 130}));
        json!({"type": "file", "oid": "aa", "path": path, "size": bytes.len(), "lfs": lfs})
    };
    let digest = Digest::of(&weights);
    let page = json!([{"type": "directory", "oid": "aa", "size": 0, "path": "onnx"}, entry("config.json", b"{}", None)]);
    server.put(TREE, &serde_json::to_vec(&page).unwrap());
    server.put_header(TREE, &format!("Link: <{}>; rel=\"next\"", server.url("/api/next?cursor=a%3D")));
    let page = json!([entry("model.safetensors", &weights, Some(&digest)), entry("a b/(odd).gguf", b"x", None)]);
    server.put("/api/next?cursor=a%3D", &serde_json::to_vec(&page).unwrap());
    server.put("/o/n/resolve/main/config.json", b"{}");
    server.put("/o/n/resolve/main/model.safetensors", &weights);
    let dir = tempfile::tempdir().unwrap();
    let fetched = hub(&server, "o/n", dir.path()).await.unwrap();
    assert_eq!(paths(&fetched), ["model.safetensors", "config.json"]);
    assert_eq!((fetched.files[0].1, fetched.files[0].2), (digest, 3000));
    assert_eq!(fetched.suggested_name.as_str(), "n");
    fetched.discard().unwrap();

    server.fail("/o/n/resolve/main/model.safetensors", [Fault::Flip(5)]);
    let error = hub(&server, "o/n", dir.path()).await.unwrap_err();
    assert!(matches!(error, PullError::Digest { .. }), "{error}");

    server.put_header(TREE, "Link: <https://elsewhere.test/>; rel=\"next\"");
    let error = hub(&server, "o/n", dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("on another host"), "{error}");
    server.put_header(TREE, &format!("Link: <{}>; rel=\"next\"", server.url(TREE)));
    let error = hub(&server, "o/n", dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("more than 20 pages"), "{error}");
}

#[tokio::test]
async fn a_registry_gives_the_weights_of_an_image() {
    let (model, adapter) = (noise(34, 2000), noise(35, 500));
    let server = Server::start();
    let layer = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        server.put(&format!("/v2/library/qwen/blobs/sha256:{digest}"), bytes);
        let media_type = format!("application/vnd.ollama.image.{kind}");
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let image = |layers: Vec<serde_json::Value>| serde_json::to_vec(&json!({"schemaVersion": 2, "layers": layers})).unwrap();
    let manifest = "/v2/library/qwen/manifests/0.5b";
    server.put(manifest, &image(vec![layer("template", b"t"), layer("adapter", &adapter), layer("model", &model)]));
    let dir = tempfile::tempdir().unwrap();
    let fetched = hub(&server, "ollama:qwen:0.5b", dir.path()).await.unwrap();
    assert_eq!(paths(&fetched), ["model.gguf", "adapter.gguf"]);
    assert!(std::fs::read(fetched.folder.join("model.gguf")).unwrap() == model);
    assert_eq!(fetched.suggested_name.as_str(), "qwen-0.5b");
    assert_eq!(server.seen(manifest)[0].header("accept"), Some("application/vnd.docker.distribution.manifest.v2+json"));
    drop(fetched);

    let mut odd = layer("model", &model);
    odd["digest"] = json!("sha256:../../etc");
    for (layers, words) in [
        (vec![layer("template", b"t")], "no layer of application/vnd.ollama.image.model"),
        (vec![layer("model", &model), layer("model", &adapter)], "several layers"),
        (vec![odd], "digest is not sha256"),
    ] {
        server.put(manifest, &image(layers));
        let error = hub(&server, "ollama:qwen:0.5b", dir.path()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
