//! Building a generation: plugins, models, routes, listeners. What did not change is shared with what serves.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tollgate_config::{Backend, Config, Model as ModelSpec, Object, Plugin as PluginSpec, Route as RouteSpec, Source, Startup};
use tollgate_models::{LeaseError, Library, Models, Pool, Remote, Served, Slot, default_budget};
use tollgate_pipeline::{Generation, Listener, Route};
use tollgate_plugins::{Builder, Capability, Hook, Limits, OnFailure, Plugin, PluginHost, Spec};

use crate::quarantine::Quarantined;
use crate::routes::Table;

/// How long a model may take to be loaded when the config is taken in.
const LONGEST_LOAD: Duration = Duration::from_secs(600);

/// Components inside the binary, laid out as files.
#[derive(Debug, Clone)]
pub struct Components {
    /// Name and bytes.
    pub builtin: &'static [(&'static str, &'static [u8])],
    /// Where they are laid out for the build step.
    pub directory: PathBuf,
}

impl Components {
    fn path(&self, source: &Source, config: &Config) -> Result<PathBuf, String> {
        let name = match source {
            Source::File(path) => return Ok(config.resolve(path)),
            Source::Installed(name) => return Err(format!("`installed:{name}` is a model, and a plugin is wanted")),
            Source::Builtin(name) => name.as_str(),
        };
        let known = || self.builtin.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
        let found = self.builtin.iter().find(|(known, _)| *known == name);
        let (_, bytes) = found.ok_or_else(|| format!("there is no built-in plugin `{name}`; there are: {}", known()))?;
        let path = self.directory.join(format!("{name}.wasm"));
        // The build step's cache goes by content, so that a file changed by hand is put right here.
        if std::fs::read(&path).ok().as_deref() != Some(*bytes) {
            std::fs::create_dir_all(&self.directory).map_err(|error| format!("{}: {error}", self.directory.display()))?;
            std::fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(path)
    }
}

/// Makes generations from configs.
pub struct Assembler {
    host: PluginHost,
    builder: Builder,
    components: Components,
    library: Library,
    server_secret: [u8; 32],
    plugins: HashMap<String, Weak<Plugin>>,
    models: HashMap<String, Weak<Slot>>,
    remotes: HashMap<String, Weak<Remote>>,
    pool: Pool,
    /// Requests at once on a route, by its id: the limit holds across generations.
    concurrency: HashMap<String, (u32, Weak<Semaphore>)>,
    /// What each plugin last served with, for the quarantine's word on it.
    last_good: HashMap<String, String>,
}

impl Assembler {
    /// Models come from `library` and go into `pool`. `server_secret` salts each tenant's prefix cache (P-A9).
    #[must_use]
    pub fn new(
        host: PluginHost,
        builder: Builder,
        components: Components,
        (library, pool): (Library, Pool),
        server_secret: [u8; 32],
    ) -> Self {
        Assembler {
            host,
            builder,
            components,
            library,
            server_secret,
            plugins: HashMap::new(),
            models: HashMap::new(),
            remotes: HashMap::new(),
            pool,
            concurrency: HashMap::new(),
            last_good: HashMap::new(),
        }
    }

    /// Where the links to installed models are.
    #[must_use]
    pub fn installed(&self) -> PathBuf {
        self.library.installed()
    }

    /// Builds the whole of a generation, or says everything that is wrong.
    ///
    /// # Errors
    /// One entry for each object that failed.
    pub async fn build(&mut self, config: &Config, number: u64) -> Result<Generation, Vec<Quarantined>> {
        let (before, now) = (self.pool.limits(), limits(config));
        // What is built may need more than what serves. What needs less is held to it when it serves.
        self.pool.set_limits(before.0.max(now.0), before.1.max(now.1));
        let built = self.build_within(config, number).await;
        let (budget, waiting) = if built.is_ok() { now } else { before };
        self.pool.set_limits(budget, waiting);
        built
    }

    async fn build_within(&mut self, config: &Config, number: u64) -> Result<Generation, Vec<Quarantined>> {
        let mut failures = Vec::new();
        let plugins = self.plugins(config, &mut failures).await;
        let models = self.models(config, &mut failures).await;
        let mut routes = Vec::new();
        for route in config.routes.values() {
            let concurrency = route.limits.concurrency.map(|limit| self.concurrency(route.id.as_str(), limit));
            routes.push(route_of(route, &plugins, concurrency));
        }
        let listeners = config.listeners.values().map(|listener| {
            let authenticators =
                listener.authenticators.iter().filter_map(|id| plugins.get(id.as_str()).cloned()).collect::<Vec<_>>();
            for plugin in authenticators.iter().filter(|plugin| !plugin.has(Hook::Authenticate)) {
                let reason = format!("the plugin `{}` authenticates nobody: it does not export `authenticate`", plugin.id());
                failures.push(Quarantined::new(listener.file.as_str(), "route", reason));
            }
            (listener.id.as_str().to_owned(), Listener { authenticators })
        });
        let listeners = listeners.collect::<HashMap<_, _>>();
        let mut good = Vec::new();
        for route in routes {
            match route {
                Ok(route) => good.push(Arc::new(route)),
                Err(failure) => failures.push(failure),
            }
        }
        if !failures.is_empty() {
            return Err(failures);
        }
        let digests = plugins.iter().map(|(id, plugin)| (id.clone(), plugin.digest().to_owned())).collect();
        let mut plugins = plugins.into_values().collect::<Vec<_>>();
        plugins.sort_by(|a, b| a.id().cmp(b.id()));
        let generation = Generation {
            number,
            listeners,
            routes: Box::new(Table::new(config.clone(), good)),
            plugins,
            models: Models::new(models),
            retired: CancellationToken::new(),
        };
        self.check_slots(config, &generation)?;
        self.last_good = digests;
        Ok(generation)
    }

    /// A request reserves all instances that it may need: with fewer slots than that, none would ever be admitted.
    fn check_slots(&self, config: &Config, generation: &Generation) -> Result<(), Vec<Quarantined>> {
        let total = self.host.slots().for_routes();
        let too_many = config.listeners.values().filter_map(|listener| {
            let wanted = generation.instances_for(listener.id.as_str());
            let reason = format!(
                "a request may need {wanted} plugin instances and {total} are for routes: raise [plugins] slots in tollgate.toml"
            );
            (wanted > total).then(|| Quarantined::new(listener.file.as_str(), "route", reason))
        });
        let too_many = too_many.collect::<Vec<_>>();
        if too_many.is_empty() { Ok(()) } else { Err(too_many) }
    }

    fn concurrency(&mut self, route: &str, limit: u32) -> Arc<Semaphore> {
        let known =
            self.concurrency.get(route).filter(|(known, _)| *known == limit).and_then(|(_, semaphore)| semaphore.upgrade());
        known.unwrap_or_else(|| {
            let semaphore = Arc::new(Semaphore::new(limit as usize));
            self.concurrency.insert(route.to_owned(), (limit, Arc::downgrade(&semaphore)));
            semaphore
        })
    }

    async fn plugins(&mut self, config: &Config, failures: &mut Vec<Quarantined>) -> HashMap<String, Arc<Plugin>> {
        let mut plugins = HashMap::new();
        for spec in config.plugins.values() {
            match self.plugin(config, spec).await {
                Ok(plugin) => {
                    plugins.insert(spec.id.as_str().to_owned(), plugin);
                }
                Err((stage, reason)) => {
                    let last_good = self.last_good.get(spec.id.as_str()).cloned();
                    failures.push(Quarantined { last_good, ..Quarantined::new(spec.file.as_str(), stage, reason) });
                }
            }
        }
        plugins
    }

    async fn plugin(&mut self, config: &Config, object: &Object<PluginSpec>) -> Result<Arc<Plugin>, (String, String)> {
        let (components, source, config) = (self.components.clone(), object.component.clone(), config.clone());
        let found = tokio::task::spawn_blocking(move || components.path(&source, &config)).await;
        let path = found.map_err(|error| error.to_string()).flatten().map_err(|reason| ("check".to_owned(), reason))?;
        let spec = spec_of(object);
        let artifact = self.builder.build(&path, &spec).await.map_err(|failure| (failure.stage.to_string(), failure.reason))?;
        // The same code and config under other limits is another plugin.
        let key = format!("{} {:?}", artifact.digest(), spec);
        if let Some(plugin) = self.plugins.get(&key).and_then(Weak::upgrade) {
            return Ok(plugin);
        }
        // Laying out megabytes of code takes milliseconds.
        let host = self.host.clone();
        let loaded = tokio::task::spawn_blocking(move || host.load(&artifact, spec)).await;
        let failed = |reason: String| ("load".to_owned(), reason);
        let plugin = loaded.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let plugin = Arc::new(plugin);
        self.plugins.retain(|_, plugin| plugin.strong_count() > 0);
        self.plugins.insert(key, Arc::downgrade(&plugin));
        Ok(plugin)
    }

    /// The models of a config, in order; those that have to be there are loaded, as far as there is room.
    async fn models(&mut self, config: &Config, failures: &mut Vec<Quarantined>) -> Vec<Served> {
        let settings = &config.settings.models;
        // What stays for good comes first: what is loaded after it has to fit beside it. Adapters come after their bases.
        let mut specs = config.models.values().collect::<Vec<_>>();
        specs.sort_by_key(|spec| (spec.base.is_some(), !spec.pin));
        let mut models = Vec::new();
        for spec in specs {
            let base = spec.base.as_ref().and_then(|base| local(&models, base.as_str()));
            if base.is_none() && spec.base.is_some() {
                // It failed, and is reported as such: not once more for each of its adapters.
                continue;
            }
            let made = match (self.served(config, spec, base).await, settings.startup) {
                (Ok(Served::Local(slot)), Startup::Strict) if !slot.was_asked() => warmed(slot).await.map(Served::Local),
                (Err(reason), Startup::Lazy) => Ok(Served::Local(self.absent(spec, &reason))),
                (made, _) => made,
            };
            match made {
                Ok(model) => models.push(model),
                Err(reason) => failures.push(Quarantined::new(spec.file.as_str(), "load", reason)),
            }
        }
        models
    }

    /// What an object describes: a model that runs here, an adapter of `base`, or a model that a provider has.
    async fn served(&mut self, config: &Config, object: &Object<ModelSpec>, base: Option<Arc<Slot>>) -> Result<Served, String> {
        if object.backend == Backend::Provider {
            return self.remote(config, object).await.map(Served::Remote);
        }
        self.model(config, object, base).await.map(Served::Local)
    }

    /// The provider's model of an object: the one there is, if its settings and its authorities are the same. The key is read for
    /// every request.
    async fn remote(&mut self, config: &Config, object: &Object<ModelSpec>) -> Result<Arc<Remote>, String> {
        let authorities = object.provider.as_ref().and_then(|provider| provider.ca.as_ref());
        let stamp = authorities.and_then(|path| std::fs::metadata(config.resolve(path)).ok());
        let stamp = stamp.map(|file| (file.len(), file.modified().ok()));
        let key = format!("{} {} {stamp:?}", object.id.as_str(), object.canonical_json());
        if let Some(remote) = self.remotes.get(&key).and_then(Weak::upgrade) {
            return Ok(remote);
        }
        let (object, dir, now_s) = (object.clone(), config.dir.clone(), now_s());
        let made = tokio::task::spawn_blocking(move || Remote::new(&object, &dir, now_s)).await;
        let remote = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.remotes.retain(|_, remote| remote.strong_count() > 0);
        self.remotes.insert(key, Arc::downgrade(&remote));
        Ok(remote)
    }

    /// The model of an object: the one there is, if its settings and its file are the same, and its base if it has one.
    async fn model(&mut self, config: &Config, object: &Object<ModelSpec>, base: Option<Arc<Slot>>) -> Result<Arc<Slot>, String> {
        let stamp = match &object.artifact {
            Some(Source::File(path)) => {
                std::fs::metadata(config.resolve(path)).ok().map(|file| (file.len(), file.modified().ok(), None))
            }
            Some(Source::Installed(name)) => {
                std::fs::read_link(self.installed().join(name.as_str())).ok().map(|to| (0, None, Some(to)))
            }
            _ => None,
        };
        // An adapter keeps its base: while there is such an adapter, no other base has this address.
        let of = base.as_ref().map_or(0, |base| Arc::as_ptr(base).addr());
        let key = format!("{} {} {stamp:?} {of:x}", object.id.as_str(), object.canonical_json());
        if let Some(slot) = self.models.get(&key).and_then(Weak::upgrade) {
            return Ok(slot);
        }
        let (object, library, pool, secret) = (object.clone(), self.library.clone(), self.pool.clone(), self.server_secret);
        let now_s = now_s();
        let make = move || match &base {
            Some(base) => Slot::adapter(&object, base, &library, now_s),
            None => Slot::new(&object, &library, &pool, secret, now_s),
        };
        let made = tokio::task::spawn_blocking(make).await;
        let slot = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.models.retain(|_, slot| slot.strong_count() > 0);
        self.models.insert(key, Arc::downgrade(&slot));
        Ok(slot)
    }

    /// A place for a model that cannot be used, where that is no reason not to serve the others.
    fn absent(&self, object: &Object<ModelSpec>, reason: &str) -> Arc<Slot> {
        tracing::error!(file = object.file, reason, "requests for this model will fail");
        Slot::absent(object, &self.pool, reason, now_s())
    }
}

/// The model of this id, if it runs here.
fn local(models: &[Served], id: &str) -> Option<Arc<Slot>> {
    models.iter().find_map(|model| match model {
        Served::Local(slot) if slot.id() == id => Some(Arc::clone(slot)),
        _ => None,
    })
}

/// Bytes for all models, and how many requests may wait for one.
#[must_use]
pub fn limits(config: &Config) -> (u64, usize) {
    let models = &config.settings.models;
    (models.memory_mib.map_or_else(default_budget, |mib| u64::from(mib) << 20), models.queue as usize)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Loads a model where there is room for it beside all that is loaded. Else it comes with its first request: what serves now is not
/// sent away for what may never be asked for.
async fn warmed(slot: Arc<Slot>) -> Result<Arc<Slot>, String> {
    if !slot.has_room() {
        tracing::info!(model = slot.id(), "there is no room for it now; it is loaded with its first request");
        return Ok(slot);
    }
    match slot.lease(Instant::now() + LONGEST_LOAD).await {
        Err(LeaseError::Failed { reason, .. }) => Err(reason),
        Ok(_) => Ok(slot),
        // Others were quicker: that says nothing of this one.
        Err(error) => {
            tracing::info!(model = slot.id(), %error, "it is loaded with its first request");
            Ok(slot)
        }
    }
}

fn spec_of(object: &Object<PluginSpec>) -> Spec {
    let limits = &object.limits;
    let milliseconds = |ms: u32| Duration::from_millis(u64::from(ms));
    let grants = Capability::ALL.into_iter().filter(|known| object.grants.iter().any(|grant| grant.as_str() == known.as_str()));
    Spec {
        id: object.id.as_str().to_owned(),
        config_json: object.config_json(),
        grants: grants.collect(),
        limits: Limits {
            memory_over_snapshot: u64::from(limits.memory_mib) << 20,
            cpu: milliseconds(limits.cpu_ms),
            host_time: milliseconds(limits.wall_ms),
            handles: limits.handles as usize,
            log_bytes: (limits.log_kib as usize) << 10,
            ..Limits::default()
        },
        on_failure: match object.on_failure {
            tollgate_config::OnFailure::Refuse => OnFailure::Refuse,
            tollgate_config::OnFailure::Skip => OnFailure::Skip,
        },
    }
}

fn route_of(
    object: &Object<RouteSpec>,
    plugins: &HashMap<String, Arc<Plugin>>,
    concurrency: Option<Arc<Semaphore>>,
) -> Result<Route, Quarantined> {
    let failure = |reason: String| Err(Quarantined::new(object.file.as_str(), "route", reason));
    // A plugin that failed is reported as such, not once more for each of its routes.
    let plugins = object.plugins.iter().filter_map(|id| plugins.get(id.as_str()).cloned()).collect::<Vec<_>>();
    let on_a_route = [Hook::Compose, Hook::FilterPrompt, Hook::FilterReply, Hook::Format];
    if let Some(idle) = plugins.iter().find(|plugin| !on_a_route.iter().any(|hook| plugin.has(*hook))) {
        return failure(format!("the plugin `{}` has no hook that runs on a route", idle.id()));
    }
    let formats = plugins.iter().filter(|plugin| plugin.has(Hook::Format)).map(|plugin| plugin.id()).collect::<Vec<_>>();
    if formats.len() > 1 {
        return failure(format!("one plugin may format a reply, and these do: {}", formats.join(", ")));
    }
    Ok(Route {
        id: object.id.as_str().to_owned(),
        plugins,
        model: object.model.as_ref().map(|name| name.as_str().to_owned()),
        template: object.template.as_ref().map(|name| name.as_str().to_owned()),
        max_tokens: object.limits.max_tokens,
        concurrency,
    })
}
