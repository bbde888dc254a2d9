//! How files change: a shell's redirection, a careful program, vim, rsync, cp, and Kubernetes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::Place;

/// Writes a file of the config directory as people and their tools do: six styles, taken by turns. `number` tells this change
/// from the others.
pub fn write_as(style: usize, place: &Place, name: &str, text: &str, number: usize) {
    let path = place.config().join(name);
    let file = path.file_name().unwrap().to_str().unwrap();
    match style % 6 {
        // A shell's redirection: emptied, then written in two parts.
        0 => {
            let mut handle = fs::File::create(&path).unwrap();
            let (head, tail) = text.split_at(text.len() / 2);
            handle.write_all(head.as_bytes()).unwrap();
            handle.sync_all().unwrap();
            handle.write_all(tail.as_bytes()).unwrap();
        }
        // A careful program: beside it, then in its place.
        1 => {
            let beside = path.with_extension("toml.new");
            fs::write(&beside, text).unwrap();
            fs::rename(beside, &path).unwrap();
        }
        // vim: the old one becomes a backup, the new one is written, the backup goes.
        2 => {
            let backup = path.with_extension("toml~");
            fs::rename(&path, &backup).unwrap();
            fs::write(&path, text).unwrap();
            fs::remove_file(backup).unwrap();
        }
        // rsync: a dot file with a suffix, then in its place.
        3 => {
            let hidden = path.with_file_name(format!(".{file}.Xa{number:04}"));
            fs::write(&hidden, text).unwrap();
            fs::rename(hidden, &path).unwrap();
        }
        // cp: over the old content.
        4 => {
            let source = place.data().join("source.toml");
            fs::write(&source, text).unwrap();
            fs::copy(source, &path).unwrap();
        }
        // Kubernetes: the file is a link through `..data`, and `..data` is another directory from now on.
        _ => swap_link(place, &path, file, text, number),
    }
}

fn swap_link(place: &Place, path: &Path, file: &str, text: &str, number: usize) {
    let volume = place.data().join("volumes").join(file);
    let version = format!("..version{number}");
    fs::create_dir_all(volume.join(&version)).unwrap();
    fs::write(volume.join(&version).join(file), text).unwrap();
    let next = volume.join("..data_tmp");
    symlink(&version, &next).unwrap();
    fs::rename(next, volume.join("..data")).unwrap();
    let target = volume.join("..data").join(file);
    if fs::read_link(path).ok().as_deref() != Some(target.as_path()) {
        let hidden = path.with_file_name(format!(".{file}.link"));
        symlink(target, &hidden).unwrap();
        fs::rename(hidden, path).unwrap();
    }
}
