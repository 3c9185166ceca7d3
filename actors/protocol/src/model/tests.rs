use super::*;

fn mlp(out: u32) -> ModelSpec {
    ModelSpec::mlp(vec![8, 8], &[64], out)
}

fn residual(layers: &[Layer]) -> Layer {
    Layer::Residual {
        layers: layers.to_vec(),
    }
}

fn small_gpt() -> ModelSpec {
    ModelSpec::gpt(Gpt {
        vocabulary: 65,
        context: 128,
        width: 128,
        heads: 4,
        blocks: 4,
        dropout_ppm: 0,
    })
}

#[test]
fn counts_are_those_of_the_formula() {
    let model = mlp(10);
    model.check().unwrap();
    assert_eq!(model.parameter_count(), 64 * 64 + 64 + 64 * 10 + 10);
    assert_eq!(
        model.forward_flops(),
        2 * 64 * 64 + 64 + 64 + 2 * 64 * 10 + 10
    );
    assert_eq!(
        model.training_flops(),
        2 * (2 * 64 * 64 + 64) + 2 * 64 + 3 * (2 * 64 * 10 + 10),
        "no gradient of the inputs"
    );
    let names: Vec<_> = model.parameters().into_iter().map(|p| p.name).collect();
    assert_eq!(
        names,
        [
            "layers.0.bias",
            "layers.0.weight",
            "layers.2.bias",
            "layers.2.weight"
        ]
    );
}

/// Those of `torch_train.py`, where PyTorch counts 421,642 and, without a last norm, 825,153.
#[test]
fn presets_have_the_parameters_of_their_peers() {
    let cnn = ModelSpec::cnn(vec![28, 28], &[32, 64], 128, 10);
    cnn.check().unwrap();
    assert_eq!(cnn.output(), Some(vec![10]));
    assert_eq!(cnn.parameter_count(), 421_642);
    let gpt = small_gpt();
    gpt.check().unwrap();
    assert_eq!(gpt.output(), Some(vec![128, 65]));
    assert_eq!(gpt.output_len(), Some(65));
    let block = 2 * 128 + 4 * (128 * 128 + 128) + (128 * 512 + 512) + (512 * 128 + 128);
    let expected = 65 * 128 + 128 * 128 + 4 * block + 128 + (128 * 65 + 65);
    assert_eq!(gpt.parameter_count(), expected);
}

#[test]
fn a_convolution_counts_its_multiply_adds() {
    let layers = vec![
        Layer::conv2d(32, 3, 1),
        Layer::Relu {},
        Layer::max_pool(2),
        Layer::linear(10),
    ];
    let model = ModelSpec::new(vec![3, 8, 8], layers);
    model.check().unwrap();
    let (pixels, pooled) = (32 * 64, 32 * 16);
    let conv = 2 * 27 * pixels + pixels;
    let linear = 2 * pooled * 10 + 10;
    assert_eq!(model.forward_flops(), conv + pixels + 4 * pooled + linear);
    assert_eq!(
        model.training_flops(),
        2 * conv + 2 * pixels + 8 * pooled + 3 * linear
    );
    assert_eq!(
        model.kept_values(),
        3 * 64 + 2 * pixels + 2 * pooled + 10,
        "inputs, both images, the pool with its places, the outputs"
    );
}

#[test]
fn names_follow_the_nesting_and_the_order_is_that_of_execution() {
    let norm = Layer::LayerNorm { bias: true };
    let attention = Layer::Attention {
        heads: 2,
        causal: false,
        bias: false,
    };
    let layers = vec![
        Layer::linear_each(4),
        residual(&[norm, attention]),
        Layer::BatchNorm {},
    ];
    let model = ModelSpec::new(vec![3, 2], layers);
    // A batch norm takes images or vectors, not sequences.
    let error = model.check().unwrap_err();
    assert_eq!(error.layer, Some(2));
    assert!(
        error.to_string().contains("`batch_norm` on [3, 4]"),
        "{error}"
    );
    let mut model = model;
    model.layers.insert(2, Layer::linear(5));
    model.check().unwrap();
    let parameters = model.parameters();
    let names: Vec<_> = parameters.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "layers.0.bias",
            "layers.0.weight",
            "layers.1.0.bias",
            "layers.1.0.weight",
            "layers.1.1.output.weight",
            "layers.1.1.qkv.weight",
            "layers.2.bias",
            "layers.2.weight",
            "layers.3.bias",
            "layers.3.running_mean",
            "layers.3.running_var",
            "layers.3.weight",
        ]
    );
    assert_eq!(parameters[5].shape, [12, 4]);
    assert_eq!(parameters[7].shape, [5, 12]);
    assert!(parameters[9].part.is_statistic());
}

#[test]
fn what_cannot_be_built_is_refused_with_its_layer() {
    assert_eq!(mlp(0).check().unwrap_err().layer, Some(2));
    assert_eq!(mlp(u32::MAX).check().unwrap_err().layer, Some(2));
    for input in [vec![], vec![0], vec![u32::MAX, u32::MAX], vec![1; 5]] {
        assert!(ModelSpec { input, ..mlp(10) }.check().is_err());
    }
    for layers in [vec![], vec![Layer::Relu {}]] {
        assert!(ModelSpec::new(vec![4], layers).check().is_err());
    }
}

/// Each with the layer at fault and a part of what is said.
#[test]
fn errors_name_the_layer_and_the_shapes() {
    let image = || vec![3, 8, 8];
    let strided = |stride| Layer::Conv2d {
        filters: 4,
        kernel: [3, 3],
        stride,
        padding: [0, 0],
        groups: 1,
        bias: true,
    };
    let grouped = Layer::Conv2d {
        filters: 4,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [0, 0],
        groups: 2,
        bias: true,
    };
    let head = || Layer::linear(2);
    let cases: [(Vec<u32>, Vec<Layer>, usize, &str); 15] = [
        (
            vec![8, 8],
            vec![Layer::conv2d(4, 3, 1), head()],
            0,
            "`conv2d 4 kernel=3 padding=1` on [8, 8]: it takes an image",
        ),
        (
            image(),
            vec![grouped, head()],
            0,
            "groups=2 does not divide 3 channels",
        ),
        (
            image(),
            vec![Layer::conv2d(4, 9, 0), head()],
            0,
            "a window of [9, 9] does not fit into [8, 8]",
        ),
        (image(), vec![strided([0, 1]), head()], 0, "have no size 0"),
        (
            image(),
            vec![Layer::conv2d(0, 3, 0), head()],
            0,
            "0 filters",
        ),
        (
            vec![3],
            vec![Layer::max_pool(2), head()],
            0,
            "it takes an image",
        ),
        (
            image(),
            vec![Layer::conv2d(4, 3, 1)],
            0,
            "gives [4, 8, 8]: the outputs are a vector",
        ),
        (
            vec![5, 6],
            vec![
                Layer::Attention {
                    heads: 4,
                    causal: true,
                    bias: true,
                },
                head(),
            ],
            0,
            "4 heads do not divide a width of 6",
        ),
        (
            vec![5],
            vec![
                head(),
                Layer::Embedding {
                    rows: 9,
                    width: 2,
                    positions: false,
                },
            ],
            1,
            "it is the first layer",
        ),
        (
            vec![5],
            vec![Layer::Reshape { shape: vec![2, 3] }, head()],
            0,
            "[5] has 5 values, [2, 3] has 6",
        ),
        (
            vec![5],
            vec![
                head(),
                residual(&[Layer::Relu {}, Layer::linear(3)]),
                head(),
            ],
            1,
            "`residual` on [2]: its branch gives [3]",
        ),
        (
            vec![5],
            vec![head(), residual(&[Layer::max_pool(2)]), head()],
            1,
            "its layer 1: `max_pool 2` on [2]",
        ),
        (
            vec![5],
            vec![Layer::Dropout { rate_ppm: PPM }, head()],
            0,
            "nothing would be left",
        ),
        (vec![5], vec![head(), Layer::Softmax {}], 1, "leave it out"),
        (vec![5], vec![head(), residual(&[])], 1, "has no layers"),
    ];
    for (input, layers, at, said) in cases {
        let error = ModelSpec::new(input, layers).check().unwrap_err();
        assert_eq!(error.layer, Some(at), "{error}");
        assert!(
            error.to_string().contains(said),
            "{error}\nsays not: {said}"
        );
    }
}

#[test]
fn depth_and_number_are_bounded() {
    let mut layer = Layer::linear(2);
    for _ in 0..MAX_DEPTH - 1 {
        layer = residual(&[layer]);
    }
    let nested = |layer| ModelSpec::new(vec![2], vec![layer, Layer::linear(2)]);
    nested(layer.clone()).check().unwrap();
    assert!(nested(residual(&[layer])).check().is_err());
    let many = vec![Layer::linear(2); MAX_LAYERS];
    ModelSpec::new(vec![2], many.clone()).check().unwrap();
    assert!(
        ModelSpec::new(vec![2], vec![residual(&many)])
            .check()
            .is_err()
    );
}

/// A hostile shape is refused, and no size overflows.
#[test]
fn huge_sizes_are_refused_without_overflow() {
    let big = u32::MAX;
    let pair = [big, big];
    let hostile = [
        Layer::linear_each(big),
        Layer::Conv2d {
            filters: big,
            kernel: pair,
            stride: pair,
            padding: pair,
            groups: 1,
            bias: true,
        },
        Layer::Conv2d {
            filters: 1,
            kernel: pair,
            stride: [1, 1],
            padding: pair,
            groups: 1,
            bias: true,
        },
        Layer::AvgPool {
            size: pair,
            stride: [1, 1],
            padding: [big / 2; 2],
        },
        Layer::Reshape {
            shape: vec![big; 4],
        },
        Layer::Embedding {
            rows: big,
            width: big,
            positions: true,
        },
    ];
    for layer in hostile {
        for input in [vec![4], vec![4, 4], vec![1, 4, 4], vec![1 << 14, 1 << 14]] {
            let model = ModelSpec::new(input, vec![layer.clone(), Layer::linear(2)]);
            assert!(model.check().is_err(), "{layer}");
        }
    }
    let wide = ModelSpec::new(
        vec![1 << 14, 1 << 14],
        vec![
            Layer::Attention {
                heads: 1,
                causal: true,
                bias: true,
            },
            Layer::linear(1),
        ],
    );
    wide.check().unwrap_err();
    wide.training_flops();
}
