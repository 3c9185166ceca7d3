use super::*;
use cryptomind_protocol::item::{DataFormat, TextLevel};
use cryptomind_protocol::model::{Gpt, Layer as Nn, Loss};
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::{DecayGroup, Optimizer, Schedule};

const DIGITS: &str = include_str!("../../tasks/digits.toml");
const CSV: &str = include_str!("../../tasks/csv.toml");
const INFER: &str = include_str!("../../tasks/infer.toml");
const CNN: &str = include_str!("../../tasks/cnn.toml");
const GPT: &str = include_str!("../../tasks/gpt.toml");

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

fn text(context: u32, tokens: usize) -> DatasetInfo {
    let format = DataFormat::Text {
        file: "a.txt".into(),
        level: TextLevel::Character,
        held_out_ppm: 100_000,
    };
    DatasetInfo {
        format,
        ..dataset(vec![context], tokens)
    }
}

/// A dataset of numbers to predict.
fn numbers(input: Vec<u32>, values: usize) -> DatasetInfo {
    let mut info = dataset(input, values);
    info.values = std::mem::take(&mut info.classes);
    info
}

/// The digits' file with this for its layers.
fn digits_with(model: &str) -> String {
    let own = "layers = [\"linear 64\", \"relu\", \"linear 10\"]";
    assert!(DIGITS.contains(own));
    DIGITS.replacen(own, model, 1)
}

fn model_of(text: &str) -> Result<ModelSpec, ConfigError> {
    match TaskFile::parse("t.toml", text)?.work {
        FileWork::Train { model, .. } => Ok(model),
        FileWork::Infer { .. } => panic!("a training task"),
    }
}

#[test]
fn the_samples_are_tasks() {
    let id = |item: &ItemRef| Ok(ItemId::new([item.to_string().len() as u8; 16]));
    let cnn = TaskFile::parse("cnn.toml", CNN).unwrap();
    cnn.check_dataset(&dataset(vec![28, 28], 10)).unwrap();
    cnn.into_spec(id).unwrap().check().unwrap();
    let gpt = TaskFile::parse("gpt.toml", GPT).unwrap();
    gpt.check_dataset(&text(64, 65)).unwrap();
    gpt.into_spec(id).unwrap().check().unwrap();
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
        ("\nlr = 0.001", "\nwire = \"int4\"", "not one of"),
        ("\nlr = 0.001", "\nexchange = \"every_hour\"", "not one of"),
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
    let coarse = training("wire = \"int8\"\n").unwrap();
    assert_eq!((usual.wire, coarse.wire), (Wire::F32, Wire::Int8));
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

/// What a model lacks is said at the line that would have to change, in the words of that file.
#[test]
fn what_does_not_fit_is_shown_with_its_cure() {
    let digits = |model: &str| digits_with(model).replacen("[8, 8]", "[64]", 1);
    let layers = |last: &str| digits(&format!("layers = [\n\"linear 16\",\n{last}]"));
    let preset =
        |name: &str, outputs: u32| digits(&format!("preset = \"{name}\"\noutputs = {outputs}"));
    let tokens = |rows: u32| {
        digits(&format!(
            "layers = [\n\"embedding {rows} 8\",\n\"linear 65 each\"]"
        ))
    };
    let tall = "\"reshape 8 2\", \"linear 10 each\"";
    let table = |classes| dataset(vec![64], classes);
    let cases = [
        (
            layers("\"linear 10\""),
            numbers(vec![64], 10),
            "[model]",
            "loss = \"mean_square\"",
        ),
        (
            layers("\"linear 10\"") + "",
            table(3),
            "\"linear 10\"",
            "\"linear 3\"",
        ),
        (layers(tall), table(10), "\"reshape", "without `each`"),
        (
            layers("\"linear 65\""),
            text(64, 65),
            "\"linear 65\"",
            "preset = \"gpt\"",
        ),
        (
            tokens(60),
            text(64, 65),
            "\"embedding 60",
            "\"embedding 65 8\"",
        ),
        (preset("mlp", 10), table(3), "outputs", "write outputs = 3"),
        (
            preset("mlp", 65),
            text(64, 65),
            "preset",
            "write preset = \"gpt\"",
        ),
        (
            preset("gpt", 10),
            table(10),
            "preset",
            "write preset = \"mlp\"",
        ),
        (
            preset("gpt", 64),
            text(64, 65),
            "outputs",
            "write outputs = 65",
        ),
        (
            preset("mlp", 10).replacen("[model]", "[model]\nloss = \"cross_entropy\"", 1),
            numbers(vec![64], 10),
            "loss",
            "loss = \"mean_square\"",
        ),
    ];
    for (text, info, line, help) in cases {
        let file = TaskFile::parse("t.toml", &text).unwrap();
        let error = file.check_dataset(&info).unwrap_err();
        assert!(error.line_text.starts_with(line), "{error}");
        assert!(error.message.starts_with("ada/digits: "), "{error}");
        let said = error.help.clone().unwrap_or_default();
        assert!(said.contains(help), "{error}");
    }
}

#[test]
fn a_preset_stands_for_its_layers() {
    let model = |text: &str| model_of(&digits_with(text)).unwrap();
    let digits = vec![8, 8];
    assert_eq!(
        model("preset = \"mlp\"\noutputs = 10"),
        ModelSpec::mlp(digits.clone(), &[128], 10)
    );
    assert_eq!(
        model("preset = \"mlp\"\noutputs = 10\nhidden = [32, 16]"),
        ModelSpec::mlp(digits.clone(), &[32, 16], 10)
    );
    assert_eq!(
        model("preset = \"cnn\"\noutputs = 10"),
        ModelSpec::cnn(digits.clone(), &[32, 64], 128, 10)
    );
    assert_eq!(
        model("preset = \"cnn\"\noutputs = 10\nfilters = [4]\nhidden = 8"),
        ModelSpec::cnn(digits, &[4], 8, 10)
    );
    let usual = Gpt {
        vocabulary: 65,
        context: 64,
        width: 128,
        heads: 4,
        blocks: 4,
        dropout_ppm: 0,
    };
    let gpt = |text: &str| {
        let text = digits_with(&format!("preset = \"gpt\"\noutputs = 65\n{text}"));
        model_of(&text.replacen("[8, 8]", "[64]", 1)).unwrap()
    };
    assert_eq!(gpt(""), ModelSpec::gpt(usual));
    let small = Gpt {
        width: 32,
        heads: 2,
        blocks: 1,
        dropout_ppm: 200_000,
        ..usual
    };
    let sizes = "width = 32\nheads = 2\nblocks = 1\ndropout = 0.2";
    assert_eq!(gpt(sizes), ModelSpec::gpt(small));
}

#[test]
fn a_preset_takes_its_own_sizes_alone() {
    let cases = [
        ("mlp", "filters = [4]", "`filters` is for preset = \"cnn\""),
        ("mlp", "blocks = 2", "`blocks` is for preset = \"gpt\""),
        ("cnn", "width = 8", "`width` is for preset = \"gpt\""),
        ("gpt", "hidden = [8]", "\"mlp\" or \"cnn\""),
        ("gpt", "filters = [8]", "`filters` is for preset = \"cnn\""),
        (
            "mlp",
            "layers = [\"linear 3\"]",
            "a preset has its own layers",
        ),
        ("mlp", "hidden = 8", "found a whole number"),
        ("cnn", "hidden = [8]", "found a list"),
        ("gpt", "dropout = 1.0", "is not a rate"),
        ("gpt", "blocks = 257", "out of range"),
        ("gpt", "blocks = 0", "out of range"),
    ];
    for (preset, line, says) in cases {
        let text = digits_with(&format!("preset = \"{preset}\"\noutputs = 10\n{line}"));
        let error = model_of(&text.replacen("[8, 8]", "[64]", 1)).expect_err(line);
        assert!(error.to_string().contains(says), "{line}:\n{error}");
        assert_eq!(error.line_text, line, "{error}");
    }
    let none = model_of(&digits_with("preset = \"mlp\"")).unwrap_err();
    assert!(
        none.message.contains("`model.outputs` is missing"),
        "{none}"
    );
    let stray = model_of(&digits_with("layers = [\"linear 10\"]\nwidth = 8")).unwrap_err();
    assert!(stray.message.contains("preset = \"gpt\""), "{stray}");
    let wrong = model_of(&digits_with("preset = \"gtp\"\noutputs = 10")).unwrap_err();
    assert!(
        wrong.to_string().contains("did you mean \"gpt\"?"),
        "{wrong}"
    );
    // Its sizes are held to the input like layers.
    let heads = "preset = \"gpt\"\noutputs = 10\nwidth = 9\nheads = 2";
    let odd = model_of(&digits_with(heads).replacen("[8, 8]", "[64]", 1)).unwrap_err();
    assert!(odd.message.contains("2 heads do not divide"), "{odd}");
    assert_eq!(odd.line_text, "preset = \"gpt\"");
}

#[test]
fn layers_lie_in_residuals_and_repetitions() {
    let layers = |text: &str| {
        let file = digits_with(&format!("layers = [{text}, \"linear 10\"]"));
        model_of(&file).unwrap().layers
    };
    let residual = |layers: &[Nn]| Nn::Residual {
        layers: layers.to_vec(),
    };
    let (eight, relu, last) = (Nn::linear_each(8), Nn::Relu {}, Nn::linear(10));
    assert_eq!(
        layers("{ residual = [\"linear 8 each\", \"relu\"] }"),
        [residual(&[eight.clone(), relu.clone()]), last.clone()]
    );
    let four = layers("{ repeat = 4, layers = [\"linear 8 each\", \"relu\"] }");
    assert_eq!(four.len(), 9);
    assert_eq!(four[6..], [eight.clone(), relu.clone(), last.clone()]);
    let nested = "{ layers = [{ residual = [{ repeat = 2, layers = [\"relu\"] }, { residual = [\"linear 8 each\"] }] }], repeat = 2 }";
    let branch = residual(&[relu.clone(), relu, residual(&[eight])]);
    assert_eq!(layers(nested), [branch.clone(), branch, last]);
}

/// A wrong layer is shown at its own line, however deep it lies; what does not fit, at the table that holds it.
#[test]
fn what_is_wrong_among_layers_is_shown_where_it_stands() {
    let cases = [
        (
            "{ residual = [\"relu\"], repeat = 2 }",
            "a residual or a repetition",
            1,
        ),
        ("{ layers = [\"relu\"] }", "a residual or a repetition", 1),
        ("{ repeat = 2 }", "a residual or a repetition", 1),
        (
            "{ repeat = 2, layers = [\"relu\"], x = 1 }",
            "a residual or a repetition",
            1,
        ),
        ("{ residual = \"relu\" }", "a residual or a repetition", 1),
        (
            "{ repeat = \"2\", layers = [\"relu\"] }",
            "a residual or a repetition",
            1,
        ),
        ("{ repeat = 0, layers = [\"relu\"] }", "give 1 to 1024", 1),
        (
            "{ repeat = 1025, layers = [\"relu\"] }",
            "give 1 to 1024",
            1,
        ),
        (
            "{ repeat = 1000, layers = [\"relu\", \"tanh\"] }",
            "more than 1024 layers",
            1,
        ),
        (
            "{ repeat = 100, layers = [{ residual = [{ repeat = 100, layers = [{ residual = [{ repeat = 1000, layers = [\"relu\"] }] }] }] }] }",
            "more than 1024 layers",
            1,
        ),
        ("{ residual = [] }", "has no layers in it", 1),
        (
            "{ residual = [\"linear 7 each\"] }",
            "which cannot be added",
            1,
        ),
        (
            "{ residual = [\n\"relu\",\n\"rleu\"] }",
            "did you mean `relu`?",
            3,
        ),
        (
            "{ repeat = 2, layers = [\n\"relu\",\n{ residual = [\n\"tanh 3\"] }] }",
            "no sizes",
            4,
        ),
        (
            "{ repeat = 2, layers = [\n\"relu\",\n\"attention 3\"] }",
            "3 heads do not divide",
            3,
        ),
        (
            "\"relu\",\n{ residual = [\n\"linear 7 each\",\n\"tanh\"] }",
            "which cannot be added",
            2,
        ),
        ("\"conv2d 3 kernel=3\"", "it takes an image", 1),
        ("\"relu\",\n\"embedding 5 5\"", "it is the first layer", 2),
    ];
    for (layers, says, line) in cases {
        let text = digits_with(&format!("layers = [\n{layers},\n\"linear 10\"]"));
        let error = model_of(&text).expect_err(layers);
        assert!(error.to_string().contains(says), "{layers}:\n{error}");
        let first = text.lines().position(|line| line == "layers = [").unwrap() + 1;
        assert_eq!(error.line - first, line, "{layers}:\n{error}");
    }
}

#[test]
fn a_loss_is_chosen_by_its_name() {
    let layers = "layers = [\"linear 64\", \"relu\", \"linear 10\"]";
    let of = |loss: &str| model_of(&digits_with(&format!("loss = \"{loss}\"\n{layers}")));
    for loss in [
        Loss::CrossEntropy,
        Loss::MeanSquare,
        Loss::BinaryCrossEntropy,
    ] {
        assert_eq!(of(loss.name()).unwrap().loss, loss);
    }
    let error = of("mean_sqare").unwrap_err();
    assert!(
        error.to_string().contains("did you mean \"mean_square\"?"),
        "{error}"
    );
    let twice = model_of(&digits_with("layers = [\n\"linear 10\",\n\"softmax\"]")).unwrap_err();
    assert!(twice.message.contains("the loss does already"), "{twice}");
    assert!(twice.line_text.starts_with("\"softmax\""), "{twice}");
}

/// Parses a template, which has to fit its dataset and its own check.
fn template(info: &DatasetInfo) -> (String, TaskFile) {
    let text = TaskFile::template("ada/some.data", info, 9_007_199_254_740_991);
    let file = TaskFile::parse("new.toml", &text).unwrap();
    file.check_dataset(info).unwrap();
    assert_eq!(file.dataset().to_string(), "ada/some.data");
    (text, file)
}

#[test]
fn a_template_is_a_task_that_fits_its_dataset() {
    for (input, classes) in [(vec![8, 8], 10), (vec![4], 2), (vec![3, 32, 32], 1000)] {
        let (text, file) = template(&dataset(input.clone(), classes));
        assert_eq!(text.contains("preset = \"cnn\""), input.len() == 3);
        assert!(file.max_cost >= "1 CTM".parse().unwrap());
    }
    let houses = numbers(vec![4], 2);
    let (text, _) = template(&houses);
    assert!(text.contains("2 values to predict.") && text.contains("for each value."));
    assert!(text.contains("loss = \"mean_square\""), "{text}");
    let huge = DatasetInfo {
        train_samples: u64::from(u32::MAX),
        ..dataset(vec![3, 512, 512], 10)
    };
    template(&huge);
}

#[test]
fn a_template_for_images_has_convolutions_to_choose() {
    for input in [vec![28, 28], vec![3, 16, 20]] {
        let info = dataset(input, 10);
        let (text, _) = template(&info);
        let lines = text.lines().filter(|line| !line.starts_with("layers"));
        let chosen: Vec<&str> = lines
            .map(|line| match line.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') => key,
                _ => line,
            })
            .collect();
        let chosen = TaskFile::parse("new.toml", &chosen.join("\n")).unwrap();
        chosen.check_dataset(&info).unwrap();
        let FileWork::Train { model, .. } = chosen.work else {
            panic!("a training task")
        };
        let is_conv = |layer: &&Nn| matches!(layer, Nn::Conv2d { .. });
        assert_eq!(model.layers.iter().filter(is_conv).count(), 2);
    }
}

#[test]
fn a_template_for_a_text_is_a_transformer() {
    for (context, tokens, samples) in [(64, 65, 15_700), (1, 2, 1), (256, 256, 3_000_000)] {
        let info = DatasetInfo {
            train_samples: samples,
            ..text(context, tokens)
        };
        let (text, file) = template(&info);
        assert!(text.contains(&format!("{tokens} tokens.")), "{text}");
        assert_eq!(file.name, "some.data-gpt");
        let FileWork::Train { train, .. } = &file.work else {
            panic!("a training task")
        };
        let Schedule::Cosine { decay_steps, .. } = train.schedule else {
            panic!("{:?}", train.schedule)
        };
        assert_eq!(u64::from(decay_steps), train.total_steps(samples));
        assert_eq!(train.global_batch, 12);
    }
}
