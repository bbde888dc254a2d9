//! Adapters of a decoder: low-rank pairs beside the products that they change.

use candle_core::{Device, Tensor};
use tollgate_backend::AdapterId;
use tollgate_backend_hf::{Lora, LoraPair, LoraShape};

use super::Decoder;
use crate::layers::{Layer, Linear};

impl Decoder {
    /// Puts an adapter's pairs beside the products that they are for. After an error some are there.
    pub(super) fn adapt(&mut self, adapter: AdapterId, lora: Lora) -> Result<(), String> {
        for (module, LoraPair { shape: LoraShape { inputs, outputs, rank }, down, up }) in lora.into_pairs() {
            let failed = |error: candle_core::Error| format!("`{}`: {error}", module.escape_debug());
            let down = Tensor::from_vec(down, (rank, inputs), &Device::Cpu).map_err(failed)?;
            let up = Tensor::from_vec(up, (outputs, rank), &Device::Cpu).map_err(failed)?;
            let mut is_known = false;
            for linear in self.linears().filter(|linear| linear.source().module == module) {
                let (rows, columns) = (linear.source().rows, linear.source().columns);
                if (rows, columns) != (outputs, inputs) {
                    let what =
                        format!("has pairs for one of the shape [{outputs}, {inputs}], and the model's is [{rows}, {columns}]");
                    return Err(format!("`{module}` {what}: it is an adapter of another model"));
                }
                linear.adapt(adapter, &down, &up).map_err(failed)?;
                is_known = true;
            }
            if !is_known {
                let shown = module.escape_debug();
                return Err(format!(
                    "it changes `{shown}`, which is no linear layer of the model: it is an adapter of another one"
                ));
            }
        }
        Ok(())
    }

    /// Takes an adapter's pairs away.
    pub(super) fn forget(&mut self, adapter: AdapterId) {
        self.linears().for_each(|linear| linear.forget(adapter));
    }

    fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(Layer::linears).chain(std::iter::once(&mut self.head))
    }
}
