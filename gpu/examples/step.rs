use cryptomind_gpu::dataset::Samples;
use cryptomind_gpu::session::Session;
use cryptomind_protocol::model::*;
use cryptomind_protocol::task::*;
use std::time::Instant;
fn main() {
    if std::env::args().nth(3).is_some() {
        let n: usize = std::env::args().nth(2).unwrap().parse().unwrap();
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
            .install(work)
    } else {
        work()
    }
}
fn work() {
    let which = std::env::args().nth(1).unwrap();
    let threads: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let (model, batch) = match &which[..] {
        "mlp" => (ModelSpec::mlp(vec![784], &[512, 512], 10), 128u32),
        "cnn" => (ModelSpec::cnn(vec![28, 28], &[32, 64], 128, 10), 64),
        _ => {
            let mut m = ModelSpec::gpt(Gpt {
                vocabulary: 65,
                context: 128,
                width: 128,
                heads: 4,
                blocks: 4,
                dropout_ppm: 0,
            });
            m.layers.retain(|l| !matches!(l, Layer::LayerNorm { .. }));
            (m, 16)
        }
    };
    let n = batch * model.input_len() as u32;
    let data = if which == "gpt" {
        Samples {
            inputs: (0..n).map(|p| (p * 7 % 65) as f32).collect(),
            labels: (0..n).map(|p| p * 11 % 65).collect(),
            input_len: 128,
            classes: 65,
        }
    } else {
        Samples {
            inputs: (0..n)
                .map(|p| (p.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32)
                .collect(),
            labels: (0..batch).map(|r| r % 10).collect(),
            input_len: model.input_len(),
            classes: 10,
        }
    };
    let train = TrainSpec {
        epochs: 1,
        global_batch: batch,
        optimizer: Optimizer::adamw(1e-3),
        seed: 0,
        checkpoint_steps: 1,
    };
    let mut s = Session::with_threads(&model, &train, threads).unwrap();
    let mem = |k: &str| {
        let t = std::fs::read_to_string("/proc/self/status").unwrap();
        t.lines()
            .find(|l| l.starts_with(k))
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<f64>()
            .unwrap()
            / 1024.0
    };
    let loaded = mem("VmRSS");
    let rows: Vec<u32> = (0..batch).collect();
    let (mut t, mut g) = (vec![], vec![]);
    let mut loss = 0.0;
    for i in 0..55 {
        if i == 5 {
            s.start_profile();
        }
        let b = Instant::now();
        loss = s.grad_step(&data, &rows, &mut |_| ()).unwrap() / f64::from(batch);
        let e = b.elapsed();
        s.apply(batch).unwrap();
        s.commit();
        if i >= 5 {
            t.push(b.elapsed());
            g.push(e);
        }
    }
    for (n, p) in s.profile().unwrap().operations() {
        println!(
            "  {n:12} f {:.3} w {:.3} i {:.3}",
            p.forward.as_secs_f64() * 20.0,
            p.parameters.as_secs_f64() * 20.0,
            p.input.as_secs_f64() * 20.0
        );
    }
    t.sort();
    g.sort();
    println!(
        "{which} {:.3} ms (gradients {:.3}) loss {loss:.4} peak-loaded {:.1} MiB",
        t[25].as_secs_f64() * 1e3,
        g[25].as_secs_f64() * 1e3,
        mem("VmHWM") - loaded
    );
}
