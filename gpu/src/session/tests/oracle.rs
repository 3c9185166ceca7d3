//! The step against candle with its autograd and optimisers.

use candle_core::{D, DType, Device, Tensor as Candle, Var};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW, SGD, loss, ops};

use super::*;

/// A candle model with the session's parameters, trained by candle's autograd.
struct Oracle {
    spec: ModelSpec,
    vars: Vec<Var>,
}

impl Oracle {
    fn of(spec: &ModelSpec, session: &Session) -> Self {
        let mut rest = session.parameters();
        let mut take = |p: cryptomind_protocol::model::Parameter| {
            let (values, after) = rest.split_at(p.len());
            rest = after;
            let tensor = Candle::from_slice(values, p.shape, &Device::Cpu).unwrap();
            Var::from_tensor(&tensor).unwrap()
        };
        Self {
            vars: spec.parameters().into_iter().map(&mut take).collect(),
            spec: spec.clone(),
        }
    }

    fn logits(&self, data: &Samples, batch: &[u32]) -> Candle {
        let mut inputs = Vec::new();
        data.inputs_of(batch, &mut inputs).unwrap();
        let shape = (batch.len(), data.input_len());
        let mut x = Candle::from_vec(inputs, shape, &Device::Cpu).unwrap();
        let mut vars = self.vars.iter();
        for layer in &self.spec.layers {
            x = match layer {
                Layer::Linear { .. } => {
                    let (bias, weight) = (vars.next().unwrap(), vars.next().unwrap());
                    let product = x.matmul(&weight.t().unwrap()).unwrap();
                    product.broadcast_add(bias).unwrap()
                }
                Layer::Relu {} => x.relu().unwrap(),
                Layer::Tanh {} => x.tanh().unwrap(),
                other => panic!("candle does not do `{other}` here"),
            };
        }
        x
    }

    fn mean_loss(&self, data: &Samples, batch: &[u32]) -> Candle {
        let mut labels = Vec::new();
        data.labels_of(batch, &mut labels);
        let labels = Candle::from_vec(labels, batch.len(), &Device::Cpu).unwrap();
        loss::cross_entropy(&self.logits(data, batch), &labels).unwrap()
    }

    fn flat(tensors: impl Iterator<Item = Candle>) -> Vec<f32> {
        tensors
            .flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            .collect()
    }

    fn parameters(&self) -> Vec<f32> {
        Self::flat(self.vars.iter().map(|var| var.as_tensor().clone()))
    }
}

#[test]
fn loss_and_gradients_are_candles() {
    let data = samples(40, 6, 4);
    let batch: Vec<u32> = (3..36).collect();
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    let oracle = Oracle::of(&mixed(), &session);
    let (loss, got) = gradients(&mut session, &data, &batch);
    let mean = oracle.mean_loss(&data, &batch);
    let sum = mean
        .to_dtype(DType::F64)
        .unwrap()
        .to_scalar::<f64>()
        .unwrap()
        * 33.0;
    assert!((loss - sum).abs() < 1e-4, "{loss} for {sum}");
    let grads = mean.backward().unwrap();
    let want = Oracle::flat(
        oracle
            .vars
            .iter()
            .map(|v| (grads.get(v).unwrap() * 33.0).unwrap()),
    );
    assert_close(&got, &want, 2e-5);
}

#[test]
fn adamw_walks_as_candles_does() {
    let data = samples(40, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    let oracle = Oracle::of(&mixed(), &session);
    let params = ParamsAdamW {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
    };
    let mut optimizer = AdamW::new(oracle.vars.clone(), params).unwrap();
    for i in 0..20 {
        let batch: Vec<u32> = (i..i + 20).collect();
        optimizer
            .backward_step(&oracle.mean_loss(&data, &batch))
            .unwrap();
        step(&mut session, &data, &batch);
    }
    assert_close(session.parameters(), &oracle.parameters(), 2e-5);
}

#[test]
fn plain_sgd_walks_as_candles_does() {
    let data = samples(40, 6, 4);
    let mut session = Session::new(&mixed(), &sgd(0.0)).unwrap();
    let oracle = Oracle::of(&mixed(), &session);
    let mut optimizer = SGD::new(oracle.vars.clone(), 0.1).unwrap();
    for i in 0..20 {
        let batch: Vec<u32> = (i..i + 20).collect();
        optimizer
            .backward_step(&oracle.mean_loss(&data, &batch))
            .unwrap();
        step(&mut session, &data, &batch);
    }
    assert_close(session.parameters(), &oracle.parameters(), 2e-5);
}

#[test]
fn answers_of_inference_are_those_of_the_trained_parameters() {
    let data = samples(40, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    step(&mut session, &data, &all(&data));
    let logits = Oracle::of(&mixed(), &session).logits(&data, &all(&data));
    let want = Oracle::flat(std::iter::once(ops::softmax(&logits, D::Minus1).unwrap()));
    let trained = Model::load(&mixed(), &session.export(&BTreeMap::new())).unwrap();
    assert_close(&trained.probabilities(&data, 0..40).unwrap(), &want, 1e-6);
}
