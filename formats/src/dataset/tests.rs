use super::*;
use crate::shard;

const VOCABULARY: usize = 300;

fn options() -> DatasetOptions {
    DatasetOptions { max_tokens: 10, ..DatasetOptions::new(VOCABULARY, Digest::of(b"tokenizer"), 1) }
}

/// Pushes a text as its bytes.
fn push(writer: &mut DatasetWriter, split: Split, text: &str) -> bool {
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    writer.push(split, text.len() as u64, content_hash(text), &tokens).unwrap()
}

/// A dataset of one validation document and three training documents.
fn write(folder: &Path) -> Manifest {
    let mut writer = DatasetWriter::create(folder, options()).unwrap();
    assert!(push(&mut writer, Split::Val, "check"));
    for text in ["one", "three", "a document longer than a shard"] {
        assert!(push(&mut writer, Split::Train, text));
    }
    writer.finish().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn documents_become_shards_and_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let manifest = write(dir);
    assert_eq!(names(dir), ["manifest.json", "train_000000.bin", "train_000001.bin", "val.hashes", "val_000000.bin"]);
    let dataset = Dataset::open(dir).unwrap();
    assert_eq!(dataset.manifest(), Some(&manifest));
    let train = dataset.train_shards().unwrap();
    assert_eq!(train[0].tokens(), [&[1], &bytes("one")[..], &[1], &bytes("three")].concat());
    assert_eq!(train[1].tokens(), [&[1], &bytes("a document longer than a shard")[..]].concat());
    assert_eq!(dataset.val_shards()[0].tokens(), [&[1], &bytes("check")[..]].concat());
    assert_eq!(dataset.eval_shards().unwrap()[0].path(), dataset.val_shards()[0].path());
    assert_eq!((manifest.documents(Split::Train), manifest.text_bytes(Split::Train)), (3, 38));
    assert_eq!((manifest.tokens(Split::Train), manifest.tokens(Split::Val)), (41, 6));
    dataset.verify_hashes().unwrap();
    dataset.check_vocabulary(VOCABULARY, Some(Digest::of(b"tokenizer"))).unwrap();
}

fn bytes(text: &str) -> Vec<u16> {
    text.bytes().map(u16::from).collect()
}

#[test]
fn a_document_is_never_in_both_splits() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::create(folder.path().join("a"), options()).unwrap();
    assert!(push(&mut writer, Split::Val, "held out"));
    assert!(!push(&mut writer, Split::Train, "held out"));
    assert!(push(&mut writer, Split::Train, "seen"));
    assert!(push(&mut writer, Split::Train, "seen"), "repetition within a split is not looked at");
    assert!(!push(&mut writer, Split::Val, "seen"), "already trained on");
    let manifest = writer.finish().unwrap();
    assert_eq!(manifest.duplicates_dropped, 2);
    assert_eq!((manifest.documents(Split::Train), manifest.documents(Split::Val)), (2, 1));
    // More training text, tokenised later, is held to the same validation documents.
    let first = Dataset::open(folder.path().join("a")).unwrap();
    let mut more = DatasetWriter::create(folder.path().join("b"), options()).unwrap();
    more.exclude(&first).unwrap();
    assert!(!push(&mut more, Split::Train, "held out"));
    assert!(push(&mut more, Split::Train, "other"));
    assert_eq!(more.finish().unwrap().duplicates_dropped, 1);
    // Shards without a manifest do not say which documents are in them.
    shard::write(folder.path().join("x_val_0.bin"), &[1, 2]).unwrap();
    let mut last = DatasetWriter::create(folder.path().join("c"), options()).unwrap();
    let error = message(last.exclude(&Dataset::open(folder.path()).unwrap()));
    assert!(error.contains("manifest `val_hashes`: expected a dataset with a manifest, found none"), "{error}");
}

#[test]
fn an_unfinished_dataset_leaves_nothing_and_a_finished_one_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut writer = DatasetWriter::create(dir, options()).unwrap();
    for text in ["one", "another one", "a third one"] {
        push(&mut writer, Split::Train, text);
    }
    assert!(names(dir).iter().all(|name| !name.ends_with(".bin")), "{:?}", names(dir));
    assert!(message(Dataset::open(dir)).contains("expected manifest.json, or shards named"));
    drop(writer);
    assert_eq!(names(dir), [""; 0]);
    write(dir);
    let error = message(DatasetWriter::create(dir, options()));
    assert!(error.contains("expected a folder without a dataset, found"), "{error}");
}

#[test]
fn what_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = message(DatasetWriter::create(folder.path(), DatasetOptions { vocab_size: 65_537, ..options() }));
    assert!(error.contains("`vocab_size`: expected 1 to 65536"), "{error}");
    let error = message(DatasetWriter::create(folder.path(), DatasetOptions { bos_id: 300, ..options() }));
    assert!(error.contains("`bos_id`: expected below vocab_size 300"), "{error}");
    let mut writer = DatasetWriter::create(folder.path(), options()).unwrap();
    for token in [300, 65_536 + 5] {
        let error = message(writer.push(Split::Train, 3, 0, &[5, token]));
        let expected = format!("manifest `document`: expected tokens below vocab_size 300, found {token} at token 1");
        assert_eq!(error, expected);
    }
    // Two documents of different text may have the same tokens: then whole shards can still be equal.
    let mut writer = DatasetWriter::create(folder.path().join("b"), options()).unwrap();
    writer.push(Split::Val, 3, 1, &[7, 8]).unwrap();
    writer.push(Split::Train, 3, 2, &[7, 8]).unwrap();
    assert!(message(writer.finish()).contains("found train_000000.bin with the hash of val_000000.bin"));
}

#[test]
fn files_that_are_not_what_the_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let change = |file: &str, change: &dyn Fn(&Path)| {
        let dir = dir.join(file.replace('.', "-"));
        write(&dir);
        change(&dir.join(file));
        Dataset::open(&dir).and_then(|dataset| dataset.verify_hashes())
    };
    let error = message(change("train_000000.bin", &|path| std::fs::remove_file(path).unwrap()));
    assert!(error.contains("train_000000.bin: cannot open"), "{error}");
    let error = message(change("train_000001.bin", &|path| shard::write(path, &[1, 2]).unwrap()));
    assert!(error.contains("manifest.json: manifest `tokens`: expected 31 tokens in train_000001.bin, found 2"));
    let error = message(change("val_000000.bin", &|path| shard::write(path, &[1, 2, 3, 4, 5, 6]).unwrap()));
    assert!(error.contains("val_000000.bin: manifest `digest`: expected"), "{error}");
    let error = message(change("val.hashes", &|path| std::fs::write(path, b"").unwrap()));
    assert!(error.contains("val.hashes: manifest `digest`: expected"), "{error}");
    let error = message(change("manifest.json", &|path| std::fs::write(path, b"{").unwrap()));
    assert!(error.contains("manifest.json: dataset manifest: EOF"), "{error}");
    let large = vec![b' '; MAX_MANIFEST as usize + 1];
    std::fs::write(dir.join("manifest.json"), large).unwrap();
    assert!(message(Dataset::open(dir)).contains("expected at most 67108864 bytes, found 67108865"));
}

#[test]
fn another_vocabulary_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a"));
    let dataset = Dataset::open(folder.path().join("a")).unwrap();
    let error = message(dataset.check_vocabulary(4096, None));
    assert!(error.contains("`vocab_size`: expected the model's 4096, found 300"), "{error}");
    let error = message(dataset.check_vocabulary(VOCABULARY, Some(Digest::of(b"other"))));
    assert!(error.contains("`tokenizer`: expected the model's"), "{error}");
    shard::write(folder.path().join("x_train_0.bin"), &[1, 70]).unwrap();
    let plain = Dataset::open(folder.path()).unwrap();
    plain.check_vocabulary(71, None).unwrap();
    let error = message(plain.check_vocabulary(70, None));
    assert!(error.contains("x_train_0.bin: token shard at byte 1026: expected tokens below"), "{error}");
}

#[test]
fn shards_of_the_reference_need_no_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (name, tokens) in
        [("fineweb_train_000001", [1, 2]), ("fineweb_train_000000", [1, 3]), ("fineweb_val_000000", [1, 4])]
    {
        shard::write(dir.join(format!("{name}.bin")), &tokens).unwrap();
    }
    shard::write(dir.join("trainvalue.bin"), &[9]).unwrap();
    let dataset = Dataset::open(dir).unwrap();
    assert_eq!(dataset.manifest(), None);
    let first: Vec<u16> = dataset.train_shards().unwrap().iter().map(|s| s.tokens()[1]).collect();
    assert_eq!(first, [3, 2], "in the order of their names");
    assert_eq!(dataset.val_shards()[0].tokens(), [1, 4]);
    dataset.verify_hashes().unwrap();

    let single = |name: &str| Dataset::open(dir.join(name)).unwrap();
    assert_eq!(single("trainvalue.bin").train_shards().unwrap()[0].tokens(), [9]);
    assert_eq!(single("trainvalue.bin").eval_shards().unwrap()[0].tokens(), [9]);
    assert_eq!(single("fineweb_train_000000.bin").eval_shards().unwrap()[0].tokens(), [1, 3]);
    assert_eq!(single("fineweb_val_000000.bin").eval_shards().unwrap()[0].tokens(), [1, 4]);
    let error = message(single("fineweb_val_000000.bin").train_shards().map(<[_]>::len));
    assert!(error.contains("refused as training data: its name or manifest says"), "{error}");
    std::fs::remove_file(dir.join("fineweb_val_000000.bin")).unwrap();
    let error = message(Dataset::open(dir).unwrap().eval_shards().map(<[_]>::len));
    assert!(error.contains("expected shards named *val_*.bin, found training shards only"), "{error}");
}

#[test]
fn a_validation_shard_under_another_name_is_still_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write(&dir.join("a"));
    let dataset = Dataset::open(dir.join("a")).unwrap();
    let copy = dir.join("calibration.bin");
    std::fs::copy(dir.join("a/val_000000.bin"), &copy).unwrap();
    let error = message(dataset.refuse_validation(&copy));
    assert!(error.contains("calibration.bin: refused as training data: it is the validation shard"), "{error}");
    dataset.refuse_validation(dir.join("a/train_000000.bin")).unwrap();
    refuse_validation(dir.join("a/train_000000.bin")).unwrap();
    assert!(message(refuse_validation(dir.join("a/val_000000.bin"))).contains("its name or manifest says"));
    std::fs::copy(&copy, dir.join("a/extra.bin")).unwrap();
    assert!(message(refuse_validation(dir.join("a/extra.bin"))).contains("it is the validation shard"));
    let single = Dataset::open(dir.join("a/extra.bin")).unwrap();
    assert!(message(single.train_shards().map(<[_]>::len)).contains("it is the validation shard"));

    // In a folder without a manifest, a copy of the validation shard among the training shards.
    let plain = dir.join("plain");
    std::fs::create_dir(&plain).unwrap();
    shard::write(plain.join("x_train_0.bin"), &[1, 2, 3]).unwrap();
    shard::write(plain.join("x_val_0.bin"), &[1, 2, 4]).unwrap();
    Dataset::open(&plain).unwrap().train_shards().unwrap();
    shard::write(plain.join("x_train_1.bin"), &[1, 2, 4]).unwrap();
    let error = message(Dataset::open(&plain).unwrap().train_shards().map(<[_]>::len));
    assert!(error.contains("x_train_1.bin: refused as training data: it is the validation shard"), "{error}");
    assert!(message(refuse_validation(plain.join("x_val_0.bin"))).contains("refused as training data"));
}
