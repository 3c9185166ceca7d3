//! A training session: one model, its parameters and its optimiser's state, step by step.
//!
//! A step is `grad_step` → (the ring sums [`Session::gradients`] over all members) → `apply`, at once or
//! part by part as the sums come → `commit` or `discard`. `apply` writes a shadow; the committed state
//! changes by `commit` and `restore` alone, so a step that is not confirmed by every member can be redone
//! from the same bits. States: *idle*, *computed* (the arena holds a step's gradients), *applying* (parts of
//! the shadow hold the next state), *prepared* (all of it does). A call out of order is refused and changes
//! nothing.
//!
//! Not here: which samples make a batch (a function of seed, epoch and step, decided elsewhere),
//! and how gradients travel.

mod parts;

use std::collections::BTreeMap;
use std::ops::Range;

use cryptomind_protocol::audit::Roots;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::task::TrainSpec;

use crate::bucket::OnBucket;
use crate::dataset::Samples;
use crate::engine::{Brake, Broken, Compute};
use crate::error::EngineError;
use crate::initial;
use crate::kernel::finite::all_finite;
use crate::network::{Network, NotFinite, Step};
use crate::optimizer::{Rule, State};
use crate::profile::Profile;
use crate::root::root;
use crate::team::Team;
use crate::weights::{self, Tensor};
use parts::Parts;

/// Named in a checkpoint's metadata; another format gets another number.
const CHECKPOINT_FORMAT: &str = "cryptomind-checkpoint/1";
/// The last step that a checkpoint may be of: no run does so many, and counting on from it is safe.
const MAX_STEP: u64 = 1 << 53;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Computed,
    /// The arena is of so many samples.
    Applying(u32),
    Prepared,
}

/// A model in training.
pub struct Session {
    network: Box<dyn Compute>,
    team: Team,
    rule: Rule,
    /// What its checkpoints say they are of.
    run: Option<String>,
    /// Whence the randomness of its steps comes.
    seed: u64,
    /// Name and shape of each parameter, canonical order.
    tensors: Vec<Tensor>,
    committed: State,
    shadow: State,
    gradients: Vec<f32>,
    phase: Phase,
    /// What of the step is applied, or waits for the rest.
    applied: Parts,
}

impl Session {
    /// A session before its first step. Initial parameters follow from `train.seed` and the
    /// tensors' names alone. It computes on all processors; see [`Session::with_threads`].
    pub fn new(model: &ModelSpec, train: &TrainSpec) -> Result<Self, EngineError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(model, train, threads)
    }

    /// A session that computes on at most `threads` threads. The number changes no bit.
    pub fn with_threads(
        model: &ModelSpec,
        train: &TrainSpec,
        threads: usize,
    ) -> Result<Self, EngineError> {
        train.check()?;
        let network = Box::new(Network::new(model, threads)?);
        let tensors = weights::tensors(model);
        let rule = Rule::new(train, &tensors, threads.max(1));
        let committed = State::new(initial::parameters(model, train.seed), &rule);
        Ok(Self {
            network,
            team: Team::new(threads),
            rule,
            run: None,
            seed: train.seed,
            tensors,
            gradients: vec![0.0; committed.parameters.len()],
            shadow: committed.clone(),
            committed,
            phase: Phase::Idle,
            applied: Parts::default(),
        })
    }

    /// Bytes that the arenas of such a session take, without what lies between layers for a batch.
    /// Meaningful once the model's check passed.
    pub fn memory_bytes(model: &ModelSpec, train: &TrainSpec) -> u64 {
        let moments = train.optimizer.moments() as u64;
        let arenas = 1 + 2 * (1 + moments);
        model.parameter_count() * size_of::<f32>() as u64 * arenas
    }

    /// Its checkpoints say from now on that they are of this run, and it takes none of another. By default any of the same
    /// model and optimizer is taken.
    pub fn of_run(&mut self, run: String) {
        self.run = Some(run);
    }

    /// Has steps broken off from now on where `brake` says so.
    pub fn set_brake(&mut self, brake: Option<Brake>) {
        *self.network.brake() = brake;
    }

    /// Notes from now on where the time of its steps goes.
    pub fn start_profile(&mut self) {
        *self.network.profile() = Some(Profile::default());
    }

    /// Where the time went since [`Session::start_profile`].
    pub fn profile(&mut self) -> Option<&Profile> {
        self.network.profile().as_ref()
    }

    /// Number of parameters: the length of the arena.
    pub fn parameter_count(&self) -> usize {
        self.gradients.len()
    }

    /// The committed parameters, in canonical order.
    pub fn parameters(&self) -> &[f32] {
        &self.committed.parameters
    }

    /// Computes the *sums* over these samples of the loss, which is returned, and of the gradients,
    /// which fill the arena. `on_bucket` is given each part of the arena that is final, last layer
    /// first; together they are the whole arena. It must not block: the other layers wait for it. An empty batch gives zeros.
    ///
    /// Refused: a prepared step, samples that do not fit the model, a loss or gradient that is not
    /// finite, and what the brake breaks off (the arena is then to be ignored).
    pub fn grad_step(
        &mut self,
        data: &Samples,
        batch: &[u32],
        on_bucket: OnBucket<'_>,
    ) -> Result<f64, EngineError> {
        if self.phase == Phase::Prepared {
            return Err(EngineError::Order(
                "a step is prepared: commit or discard it first",
            ));
        }
        self.phase = Phase::Idle;
        self.check_batch(data, batch)?;
        let step = Step {
            parameters: &self.committed.parameters,
            data,
            batch,
            seed: self.seed,
            number: self.committed.step,
        };
        let (network, gradients) = (&mut self.network, &mut self.gradients);
        let loss = self
            .team
            .run(|| network.gradients(step, gradients, on_bucket));
        let loss = loss.map_err(|broken| match broken {
            Broken::NotFinite(broken) => self.refuse(broken),
            Broken::Engine(error) => error,
        })?;
        self.begin_anew();
        Ok(loss)
    }

    /// Nothing of the computed step is applied.
    fn begin_anew(&mut self) {
        self.phase = Phase::Computed;
        self.applied = Parts::default();
    }

    /// The arena: gradient sums in canonical order, for the ring to reduce in place.
    pub fn gradients(&mut self) -> &mut [f32] {
        &mut self.gradients
    }

    /// Fills the arena with sums that others came to, as [`Session::grad_step`] and the ring would have.
    ///
    /// Refused: a prepared step, and any other number of values than there are parameters.
    pub fn take_sums(
        &mut self,
        values: impl ExactSizeIterator<Item = f32>,
    ) -> Result<(), EngineError> {
        if self.phase == Phase::Prepared {
            return Err(EngineError::Order(
                "a step is prepared: commit or discard it first",
            ));
        }
        if values.len() != self.gradients.len() {
            return Err(EngineError::Order("sums of another number of parameters"));
        }
        self.gradients
            .iter_mut()
            .zip(values)
            .for_each(|(to, value)| *to = value);
        self.begin_anew();
        Ok(())
    }

    /// Prepares the step: arena ÷ `global_count`, the samples of all members, drives the optimiser
    /// from the committed state into the shadow.
    ///
    /// Refused: a count of 0, an arena without a step's gradients, a step that is prepared already,
    /// gradients or results that are not finite. Then nothing is prepared.
    pub fn apply(&mut self, global_count: u32) -> Result<(), EngineError> {
        self.apply_part(0..self.parameter_count(), global_count)
    }

    /// [`Session::apply`] for a part of the arena that holds its sums over all members, while those of others are on their
    /// way. In whatever order the parts come, they lead to the same bits. With the last of them the step is prepared. Where
    /// gradients are clipped by the norm of them all, it is the last that does the work.
    ///
    /// Refused: as there; another count than that of the parts before, and what is no part of the arena or lies in one of those.
    /// After numbers that are not finite all parts are to be applied anew.
    pub fn apply_part(&mut self, part: Range<usize>, global_count: u32) -> Result<(), EngineError> {
        self.check_part(&part, global_count)?;
        if !self.applied.add(part.clone()) {
            return Err(EngineError::Order("this part is applied already"));
        }
        self.phase = Phase::Applying(global_count);
        let is_last = self.applied.values() == self.parameter_count();
        let due = match self.rule.needs_all() {
            false => part,
            true if is_last => 0..self.parameter_count(),
            true => return Ok(()),
        };
        if !self.update(due.clone(), global_count) {
            self.begin_anew();
            return Err(self.broken_update(due));
        }
        if is_last {
            self.phase = Phase::Prepared;
        }
        Ok(())
    }

    /// Whether a part can be applied, as far as that does not depend on those before.
    fn check_part(&self, part: &Range<usize>, global_count: u32) -> Result<(), EngineError> {
        let refuse = |why| Err(EngineError::Order(why));
        match self.phase {
            Phase::Idle => return refuse("no gradients: call grad_step first"),
            Phase::Prepared => return refuse("the step is prepared already"),
            Phase::Applying(count) if count != global_count => {
                return refuse("the parts of a step are of as many samples each");
            }
            Phase::Computed | Phase::Applying(_) => {}
        }
        if global_count == 0 {
            return refuse("a step of 0 samples cannot be");
        }
        if part.start > part.end || part.end > self.parameter_count() {
            return refuse("there is no such part of the arena");
        }
        Ok(())
    }

    /// Writes a part of the shadow; whether all numbers are finite.
    fn update(&mut self, part: Range<usize>, global_count: u32) -> bool {
        let (committed, shadow) = (&self.committed, &mut self.shadow);
        let (rule, gradients) = (&self.rule, &self.gradients[..]);
        let threads = self.team.threads();
        let finite = |arena: &[f32]| all_finite(&arena[part.clone()], threads);
        self.team.run(|| {
            finite(gradients) && {
                rule.apply(committed, gradients, global_count, part.clone(), shadow);
                finite(&shadow.parameters) && shadow.moments.iter().all(|moment| finite(moment))
            }
        })
    }

    /// Of a part of the gradients or of what they made, the first layer's that is not finite.
    fn broken_update(&self, part: Range<usize>) -> EngineError {
        let moments = self.shadow.moments.iter();
        let arenas = [
            (&self.gradients, "gradient"),
            (&self.shadow.parameters, "updated parameter"),
        ];
        let moments = moments.map(|moment| (moment, "optimizer's state"));
        let mut broken = arenas
            .into_iter()
            .chain(moments)
            .filter_map(|(arena, what)| {
                let place = arena[part.clone()].iter().position(|v| !v.is_finite())?;
                Some((self.network.graph().layer_at(part.start + place), what))
            });
        let (layer, what) = broken.next().unwrap_or((0, "update"));
        self.refuse(NotFinite { layer, what })
    }

    /// What the prepared step computed: the roots of the arena, which still holds the gradients' sums over all members, and of
    /// the parameters that the step leads to. Nothing where no step is prepared.
    pub fn prepared_roots(&self) -> Option<Roots> {
        let threads = self.team.threads();
        let (gradients, parameters) = (&self.gradients[..], &self.shadow.parameters[..]);
        (self.phase == Phase::Prepared).then(|| {
            self.team.run(|| Roots {
                gradients: root(gradients, threads),
                parameters: root(parameters, threads),
            })
        })
    }

    /// Makes the prepared step the committed one; does nothing where none is prepared.
    pub fn commit(&mut self) {
        if self.phase == Phase::Prepared {
            std::mem::swap(&mut self.committed, &mut self.shadow);
            self.phase = Phase::Idle;
        }
    }

    /// Drops the gradients and the prepared step; the committed state stays as it is.
    pub fn discard(&mut self) {
        self.phase = Phase::Idle;
    }

    /// Steps that are committed.
    pub fn step(&self) -> u64 {
        self.committed.step
    }

    /// The learning rate of the step that follows the committed ones.
    pub fn learning_rate(&self) -> f64 {
        self.rule.learning_rate(self.committed.step)
    }

    /// Whether a step is prepared and waits for [`Session::commit`] or [`Session::discard`].
    pub fn is_prepared(&self) -> bool {
        self.phase == Phase::Prepared
    }

    /// BLAKE3 over the committed step, parameters and optimiser state: equal on all members.
    pub fn fingerprint(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("cryptomind training state/1");
        hasher.update(&self.committed.step.to_le_bytes());
        let moments = self.committed.moments.iter();
        for arena in std::iter::once(&self.committed.parameters).chain(moments) {
            weights::each_block(arena, |bytes| {
                hasher.update(bytes);
            });
        }
        Hash::new(*hasher.finalize().as_bytes())
    }

    /// The committed state as safetensors: parameters, optimiser state, step. Equal states give
    /// equal bytes.
    pub fn checkpoint(&self) -> Vec<u8> {
        let run = self.run.iter().map(|run| ("run".to_owned(), run.clone()));
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), CHECKPOINT_FORMAT.to_owned()),
            ("step".to_owned(), self.committed.step.to_string()),
        ]);
        metadata.extend(run);
        let moments = self.committed.moments.iter();
        let arenas: Vec<&[f32]> = std::iter::once(&self.committed.parameters)
            .chain(moments)
            .map(Vec::as_slice)
            .collect();
        weights::write(&self.state_tensors(), &arenas, &metadata)
    }

    /// Takes over the state of a checkpoint of the same model and optimizer, and of the same run where one was named; what was computed or
    /// prepared is dropped. A file that is not exactly such a checkpoint is refused and changes nothing.
    pub fn restore(&mut self, checkpoint: &[u8]) -> Result<(), EngineError> {
        let file = weights::read(checkpoint, &self.state_tensors())?;
        let said = |key: &str| file.metadata.get(key).map(String::as_str);
        if said("format") != Some(CHECKPOINT_FORMAT) {
            let found = said("format").unwrap_or("none");
            return Err(EngineError::Weights(format!(
                "a checkpoint says format {CHECKPOINT_FORMAT}, this file says {found:.80}"
            )));
        }
        if self.run.is_some() && said("run") != self.run.as_deref() {
            return Err(EngineError::Weights(
                "the checkpoint is of another run: of another model, schedule, seed or dataset, or begun with other weights".into(),
            ));
        }
        let step = said("step").and_then(|step| step.parse().ok());
        let Some(step) = step.filter(|step| *step <= MAX_STEP) else {
            return Err(EngineError::Weights(
                "the checkpoint does not say its step, or one that no run reaches".into(),
            ));
        };
        let mut arenas = file.values.chunks_exact(self.parameter_count());
        let parameters = arenas.next().map(<[f32]>::to_vec).unwrap_or_default();
        let moments: Vec<_> = arenas.map(<[f32]>::to_vec).collect();
        self.check_moments(&moments)?;
        self.committed = State {
            step,
            parameters,
            moments,
        };
        self.phase = Phase::Idle;
        Ok(())
    }

    /// Begins with weights that were trained before, as [`Session::export`] writes them: the optimizer's state is that
    /// before the first step, and what was computed or prepared is dropped. A file that is not exactly this model's
    /// weights is refused and changes nothing.
    pub fn load(&mut self, weights: &[u8]) -> Result<(), EngineError> {
        let file = weights::read(weights, &self.tensors)?;
        self.committed = State::new(file.values, &self.rule);
        self.phase = Phase::Idle;
        Ok(())
    }

    /// The committed parameters as safetensors under their [`ModelSpec::parameters`] names.
    /// Equal parameters and metadata give equal bytes. Readers here take a header of 8 MiB at
    /// most, so metadata should stay well below.
    pub fn export(&self, metadata: &BTreeMap<String, String>) -> Vec<u8> {
        weights::write(&self.tensors, &[&self.committed.parameters], metadata)
    }

    /// Names and shapes of all that a checkpoint holds: parameters, then each moment.
    fn state_tensors(&self) -> Vec<Tensor> {
        let moments = self.rule.moments().iter();
        let of_moments = moments.flat_map(|moment| {
            self.tensors.iter().map(move |tensor| Tensor {
                name: format!("{moment}.{}", tensor.name),
                shape: tensor.shape.clone(),
            })
        });
        self.tensors.iter().cloned().chain(of_moments).collect()
    }

    /// Adam's second moment is a mean of squares: a negative one is no state of any run.
    fn check_moments(&self, moments: &[Vec<f32>]) -> Result<(), EngineError> {
        let squares = self.rule.squares().and_then(|index| moments.get(index));
        match squares {
            Some(squares) if squares.iter().any(|v| *v < 0.0) => Err(EngineError::Weights(
                "a mean of squares in the checkpoint is negative".into(),
            )),
            _ => Ok(()),
        }
    }

    fn check_batch(&self, data: &Samples, batch: &[u32]) -> Result<(), EngineError> {
        data.check(self.network.goal())?;
        let samples = data.len();
        if let Some(row) = batch.iter().find(|row| **row as usize >= samples) {
            return Err(EngineError::Data(format!(
                "sample {row} is asked for, there are {samples}"
            )));
        }
        Ok(())
    }

    fn refuse(&self, broken: NotFinite) -> EngineError {
        EngineError::NotFinite {
            step: self.committed.step + 1,
            layer: broken.layer,
            what: broken.what,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
