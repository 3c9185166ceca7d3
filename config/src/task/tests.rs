use super::*;
use cryptomind_protocol::item::DataFormat;
use cryptomind_protocol::model::Layer as Nn;
use cryptomind_protocol::task::{DecayGroup, Optimizer, Schedule};

const DIGITS: &str = include_str!("../../tasks/digits.toml");
const CSV: &str = include_str!("../../tasks/csv.toml");
const INFER: &str = include_str!("../../tasks/infer.toml");

fn dataset(input: Vec<u32>, classes: usize) -> DatasetInfo {
    DatasetInfo {
        format: DataFormat::Csv {
            file: "a.csv".into(),
            label: "l".into(),
            split_seed: 0,
            targets: Vec::new(),
        },
        train_samples: 1437,
        test_samples: 360,
        input,
        classes: (0..classes).map(|n| n.to_string()).collect(),
        values: Vec::new(),
    }
}

#[test]
fn the_samples_are_tasks() {
    let id = |item: &ItemRef| Ok(ItemId::new([item.to_string().len() as u8; 16]));
    let digits = TaskFile::parse("digits.toml", DIGITS).unwrap();
    digits.check_dataset(&dataset(vec![8, 8], 10)).unwrap();
    let spec = digits.into_spec(id).unwrap();
    spec.check().unwrap();
    assert_eq!((spec.miners, spec.access), (3, Access::Free));
    let Work::Train {
        model,
        train,
        dataset,
    } = spec.work
    else {
        panic!("{spec:?}")
    };
    assert_eq!(dataset, ItemId::new([10; 16]));
    let (a, b) = (Nn::linear(64), Nn::linear(10));
    assert_eq!(model.layers, [a, Nn::Relu {}, b]);
    assert_eq!((train.epochs, train.global_batch), (30, 32));
    assert_eq!(train.optimizer, Optimizer::adamw(1e-3));

    let csv = TaskFile::parse("csv.toml", CSV)
        .unwrap()
        .into_spec(id)
        .unwrap();
    let fee = "0.001".parse().unwrap();
    assert_eq!(csv.access, Access::Paid { fee });
    let infer = TaskFile::parse("infer.toml", INFER).unwrap();
    assert_eq!(infer.items().len(), 2);
    let spec = infer.into_spec(id).unwrap();
    assert!(
        matches!(spec.work, Work::Infer { split: Split::Test, model, .. } if model == ItemId::new([14; 16]))
    );
}

/// Each wrong text is refused at its own line, with a reason that names what is wrong.
#[test]
fn what_is_wrong_is_shown_where_it_stands() {
    let cases = [
        (
            "kind = \"train\"",
            "kind = \"trian\"",
            "did you mean \"train\"?",
        ),
        (
            "name = \"digits-mlp\"",
            "name = \"Two words\"",
            "lower-case",
        ),
        ("\"ada/digits\"", "\"digits\"", "nickname/name"),
        ("\"ada/digits\"", "\"cmi1abc\"", "not a whole item id"),
        ("input = [8, 8]", "input = [8, 0]", "0 is out of range"),
        ("input = [8, 8]", "input = []", "one to four sizes"),
        ("input = [8, 8]", "inputs = [8, 8]", "did you mean `input`?"),
        ("\"linear 64\"", "\"linaer 64\"", "did you mean `linear`?"),
        ("\"linear 64\"", "\"linear 0\"", "at least one output"),
        ("\"linear 64\"", "\"linear\"", "one size"),
        (
            "\"linear 64\"",
            "\"linear 4294967295\"",
            "more than 268435456 values",
        ),
        (" \"relu\", \"linear", " \"relu 3\", \"linear", "no sizes"),
        (" \"relu\", \"linear", " 7, \"linear", "expected text"),
        (
            "layers = [\"linear 64\", \"relu\", \"linear 10\"]",
            "layers = [\"relu\"]",
            "no layer can learn",
        ),
        ("epochs = 30", "epochs = 0", "give 1 to 100000"),
        ("epochs = 30", "epochs = -1", "out of range"),
        ("epochs = 30", "epochs = \"many\"", "found text"),
        (
            "global_batch = 32",
            "global_batch = 32.0",
            "found a decimal number",
        ),
        ("\"adamw\"\n", "\"adanw\"\n", "did you mean \"adamw\"?"),
        ("\nlr = 0.001", "\nlr = nan", "not above 0"),
        (
            "\nlr = 0.001",
            "\nmomentum = 0.9",
            "for optimizer = \"sgd\"",
        ),
        (
            "\nlr = 0.001",
            "\nnesterov = true",
            "for optimizer = \"sgd\"",
        ),
        ("\nlr = 0.001", "\nclip_norm = 0", "not above 0"),
        ("\nlr = 0.001", "\ndecay = \"some\"", "not one of"),
        (
            "\nlr = 0.001",
            "\nwarmup_steps = 9",
            "for schedule = \"cosine\"",
        ),
        (
            "\nlr = 0.001",
            "\nstep_every = 9",
            "for schedule = \"step\"",
        ),
        (
            "checkpoint_steps = 135",
            "checkpoint_steps = 0",
            "1 or more",
        ),
        ("miners = 3", "miners = 17", "give 1 to 16"),
        ("max_cost = \"1 CTM\"", "max_cost = 1", "name the unit"),
        ("max_cost = \"1 CTM\"", "max_cost = \"0 CTM\"", "task quote"),
        (
            "access = \"free\"",
            "access = \"free\"\nfee = \"1 CTM\"",
            "fee without paid access",
        ),
        ("[publish]", "[publsh]", "did you mean [publish]?"),
    ];
    for (right, wrong, says) in cases {
        assert!(DIGITS.contains(right), "{right}");
        let text = DIGITS.replacen(right, wrong, 1);
        let error = TaskFile::parse("t.toml", &text).expect_err(wrong);
        assert!(error.to_string().contains(says), "{wrong}:\n{error}");
        let at = text.find(wrong).unwrap() + usize::from(wrong.starts_with('\n'));
        let line = text[..at].matches('\n').count() + 1;
        let last = line + wrong.trim_start().matches('\n').count();
        assert!(
            (line..=last).contains(&error.line),
            "{wrong}: {line}\n{error}"
        );
    }
}

/// The training that a file asks for whose `optimizer` and `lr` are replaced by these lines.
fn training(lines: &str) -> Result<TrainSpec, ConfigError> {
    let own = "optimizer = \"adamw\"\n# Default: 0.001.\nlr = 0.001\n# Default: 0.01.\nweight_decay = 0.01\n";
    assert!(DIGITS.contains(own));
    let file = TaskFile::parse("t.toml", &DIGITS.replacen(own, lines, 1))?;
    match file.work {
        FileWork::Train { train, .. } => Ok(train),
        FileWork::Infer { .. } => panic!("a training task"),
    }
}

#[test]
fn every_way_to_train_can_be_written() {
    let plain = training("").unwrap();
    let usual = TrainSpec::default();
    assert_eq!(plain.optimizer, usual.optimizer);
    assert_eq!((plain.clip_norm, plain.schedule), (None, usual.schedule));
    let adam = training("optimizer = \"adam\"\nlr = 0.01\nbeta2 = 0.99\nweight_decay = 0.1\n");
    assert_eq!(
        adam.unwrap().optimizer,
        Optimizer::Adam {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
        }
    );
    let sgd = training(
        "optimizer = \"sgd\"\nlr = 0.1\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.0005\n",
    );
    assert_eq!(
        sgd.unwrap().optimizer,
        Optimizer::Sgd {
            lr: 0.1,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 0.0005,
        }
    );
    let like_nanogpt = training(
        "clip_norm = 1.0\ndecay = \"matrices\"\nschedule = \"cosine\"\nwarmup_steps = 100\n\
         decay_steps = 5000\nmin_lr = 0.0001\n",
    );
    let like_nanogpt = like_nanogpt.unwrap();
    assert_eq!(like_nanogpt.clip_norm, Some(1.0));
    assert_eq!(like_nanogpt.decay, DecayGroup::Matrices);
    assert_eq!(
        like_nanogpt.schedule,
        Schedule::Cosine {
            warmup_steps: 100,
            decay_steps: 5000,
            min_lr: 1e-4,
        }
    );
    let step = training("schedule = \"step\"\nstep_every = 30\n").unwrap();
    assert_eq!(
        step.schedule,
        Schedule::Step {
            every_steps: 30,
            factor: 0.1,
        }
    );
}

#[test]
fn a_training_that_makes_no_sense_is_refused_at_its_key() {
    let cases = [
        ("optimizer = \"sgd\"\nbeta1 = 0.9", "\"adamw\" and \"adam\""),
        ("optimizer = \"adam\"\nmomentum = 0.9", "adam has beta1"),
        ("optimizer = \"sgd\"\nnesterov = true", "no momentum"),
        (
            "optimizer = \"sgd\"\nnesterov = 1",
            "expected true or false",
        ),
        ("schedule = \"cosine\"", "`train.decay_steps` is missing"),
        ("schedule = \"step\"", "`train.step_every` is missing"),
        (
            "schedule = \"step\"\nstep_every = 3\nmin_lr = 0",
            "schedule = \"cosine\"",
        ),
        ("schedule = \"step\"\nstep_every = 0", "give 1 or more"),
        (
            "schedule = \"step\"\nstep_every = 3\nstep_factor = 2",
            "the rate falls",
        ),
        (
            "schedule = \"cosine\"\ndecay_steps = 5\nwarmup_steps = 5",
            "not below decay_steps",
        ),
        (
            "schedule = \"cosine\"\ndecay_steps = 5\nmin_lr = 0.1",
            "not in 0 to lr",
        ),
        ("clip_norm = -1", "not above 0"),
    ];
    for (lines, says) in cases {
        let error = training(&format!("{lines}\n")).expect_err(lines);
        assert!(error.to_string().contains(says), "{lines}:\n{error}");
        let key = lines
            .rsplit('\n')
            .next()
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        let is_missing = error.message.contains("is missing");
        assert!(is_missing || error.line_text.starts_with(key), "{error}");
    }
}

#[test]
fn a_missing_key_is_named_with_an_example() {
    for (line, key) in [
        ("kind = \"train\"\n", "kind"),
        ("dataset = \"ada/digits\"\n", "dataset"),
        ("max_cost = \"1 CTM\"\n", "budget.max_cost"),
        ("epochs = 30\n", "train.epochs"),
    ] {
        let error = TaskFile::parse("t.toml", &DIGITS.replacen(line, "", 1)).unwrap_err();
        assert!(
            error.message.contains(&format!("`{key}` is missing")),
            "{error}"
        );
        assert!(error.help.is_some(), "{error}");
    }
}

#[test]
fn an_inference_task_has_no_training_in_it() {
    let wrong = |extra: &str| TaskFile::parse("t.toml", &format!("{INFER}\n{extra}")).unwrap_err();
    assert!(
        wrong("[train]\nepochs = 3")
            .message
            .contains("unknown section [train]")
    );
    assert!(wrong("[group]\nminers = 2").message.contains("one miner"));
    assert!(
        wrong("[publish]\naccess = \"free\"")
            .message
            .contains("publishes nothing")
    );
}

#[test]
fn an_item_that_is_not_found_is_shown_where_it_is_named() {
    let file = TaskFile::parse("t.toml", INFER).unwrap();
    let error = file
        .into_spec(|item| match item.to_string().as_str() {
            "ada/digits" => Ok(ItemId::new([1; 16])),
            other => Err(ErrorBody::not_found("item", format!("no item {other}"))),
        })
        .unwrap_err();
    assert!(error.line_text.starts_with("model = "), "{error}");
    assert_eq!(error.message, "no item bob/digits-mlp");
}

#[test]
fn a_model_that_does_not_fit_its_dataset_is_refused() {
    let file = TaskFile::parse("t.toml", DIGITS).unwrap();
    let shape = file.check_dataset(&dataset(vec![28, 28], 10)).unwrap_err();
    assert!(shape.line_text.starts_with("input"), "{shape}");
    assert!(
        shape.to_string().contains("write input = [28, 28]"),
        "{shape}"
    );
    let classes = file.check_dataset(&dataset(vec![8, 8], 3)).unwrap_err();
    assert!(classes.to_string().contains("\"linear 3\""), "{classes}");
    assert!(classes.line_text.starts_with("layers"), "{classes}");
}

#[test]
fn a_template_is_a_task_that_fits_its_dataset() {
    for (input, classes) in [(vec![8, 8], 10), (vec![4], 2), (vec![3, 32, 32], 1000)] {
        let info = dataset(input, classes);
        let text = TaskFile::template("ada/some.data", &info, 9_007_199_254_740_991);
        let file = TaskFile::parse("new.toml", &text).unwrap();
        file.check_dataset(&info).unwrap();
        assert_eq!(file.dataset().to_string(), "ada/some.data");
    }
    let mut numbers = dataset(vec![4], 2);
    numbers.values = std::mem::take(&mut numbers.classes);
    let text = TaskFile::template("ada/houses", &numbers, 1);
    assert!(text.contains("2 values to predict.") && text.contains("for each value."));
    let file = TaskFile::parse("new.toml", &text).unwrap();
    file.check_dataset(&numbers).unwrap();
    numbers.values.pop();
    let error = file.check_dataset(&numbers).unwrap_err().to_string();
    assert!(error.contains("has 1 values to predict"), "{error}");
}
