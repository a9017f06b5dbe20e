//! The linear layer of all models.
//!
//! Follows PyTorch 2.15.0, `Linear` (lines 53-140):
//! <https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/modules/linear.py#L53>

use afterimage_checkpoint::{Parameters, StoredMatrix};
use candle_core::{Result, Tensor};

use crate::ops::activation::Activation;
use crate::ops::linear::{Epilogue, GateAndResidual, gated, linear};
use crate::ops::matrix::{Matrix, Stack, stack};

/// `x * weight^T + bias`
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Tensor>,
}

impl Linear {
    /// With a bias.
    pub(crate) fn new(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Self::load(input, output, true, parameters)
    }

    /// With a bias, where `bias`.
    pub(crate) fn load(input: usize, output: usize, bias: bool, parameters: Parameters) -> Result<Self> {
        let stored = parameters.matrix(output, input, "weight")?;
        let weight = Matrix::new(stored, &parameters)?;
        let bias = if bias { Some(parameters.get(output, "bias")?) } else { None };
        Ok(Self { weight, bias })
    }

    /// A convolution whose kernel `[output, channels, side, side]` equals its stride, over patches that are laid out as
    /// the kernel is.
    pub(crate) fn of_patches(channels: usize, side: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Self::of_kernels((channels, side, output), true, &parameters)
    }

    /// A convolution of single pixels, over maps whose channels stand side by side; with a bias, where `bias`.
    pub(crate) fn of_pixels(input: usize, output: usize, bias: bool, parameters: &Parameters) -> Result<Self> {
        Self::of_kernels((input, 1, output), bias, parameters)
    }

    fn of_kernels(
        (channels, side, output): (usize, usize, usize),
        bias: bool,
        parameters: &Parameters,
    ) -> Result<Self> {
        let kernel = StoredMatrix::dense(parameters.get((output, channels, side, side), "weight")?);
        let weight = Matrix::new(kernel, parameters)?;
        let bias = if bias { Some(parameters.get(output, "bias")?) } else { None };
        Ok(Self { weight, bias })
    }

    /// `[.., input]` to `[.., output]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, self.epilogue())
    }

    /// The same, followed by an activation.
    pub(crate) fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        linear(x, &self.weight, Epilogue { activation: Some(activation), ..self.epilogue() })
    }

    /// The same, times what another layer and an activation make of `x`: the wide half of a GEGLU or SwiGLU.
    pub(crate) fn forward_gated(&self, x: &Tensor, gate: &Self, activation: Activation) -> Result<Tensor> {
        gated(x, [gate, self].map(|layer| (&layer.weight, layer.bias.as_ref())), activation)
    }

    /// `[rows, tokens, input]` to `[rows, tokens, output]`, through a gate and onto a residual.
    pub(crate) fn forward_onto(&self, x: &Tensor, onto: GateAndResidual<'_>) -> Result<Tensor> {
        linear(x, &self.weight, Epilogue { gate_and_residual: Some(onto), ..self.epilogue() })
    }

    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue { bias: self.bias.as_ref(), ..Epilogue::default() }
    }
}

/// Linear layers that share their input, as one product where they are stored alike.
#[derive(Debug)]
pub(crate) struct Projections {
    /// One whose outputs are those of all side by side, or one each.
    layers: Vec<Linear>,
    /// Outputs of each.
    outputs: Vec<usize>,
}

impl Projections {
    /// From `input` to as many outputs as are said with each one's parameters; all with a bias, or none.
    pub(crate) fn load<const N: usize>(
        input: usize,
        projections: [(usize, Parameters); N],
        bias: bool,
    ) -> Result<Self> {
        let [first, ..] = &projections[..] else { candle_core::bail!("there is nothing to project to") };
        let first = first.1.clone();
        let stored = projections.iter().map(|(output, parameters)| parameters.matrix(*output, input, "weight"));
        let biases = projections.iter().map(|(output, parameters)| parameters.get(*output, "bias"));
        let stored = stack(stored.collect::<Result<_>>()?)?;
        let mut biases =
            if bias { biases.map(|bias| bias.map(Some)).collect::<Result<Vec<_>>>()? } else { vec![None; N] };
        let stored = match stored {
            Stack::Separate(stored) => stored,
            Stack::Stacked(stored) => {
                biases = vec![if bias {
                    Some(Tensor::cat(&biases.into_iter().flatten().collect::<Vec<_>>(), 0)?)
                } else {
                    None
                }];
                vec![stored]
            }
        };
        let layers = stored
            .into_iter()
            .zip(biases)
            .map(|(stored, bias)| Ok(Linear { weight: Matrix::new(stored, &first)?, bias }));
        Ok(Self { layers: layers.collect::<Result<_>>()?, outputs: projections.map(|(output, _)| output).to_vec() })
    }

    /// `[rows, tokens, input]` to vectors of `head_size`, `[rows, tokens, heads, head size]` each; parts of one tensor where
    /// the product was one.
    pub(crate) fn forward_heads<const N: usize>(&self, x: &Tensor, head_size: usize) -> Result<[Tensor; N]> {
        let split = |layer: &Linear| {
            let vectors = layer.forward(x)?;
            let (rows, tokens, _) = vectors.dims3()?;
            vectors.reshape((rows, tokens, (), head_size))
        };
        let parts = match &self.layers[..] {
            [layer] => {
                let all = split(layer)?;
                let mut start = 0;
                let parts = self.outputs.iter().map(|output| {
                    let heads = output / head_size;
                    start += heads;
                    all.narrow(2, start - heads, heads)
                });
                parts.collect::<Result<Vec<_>>>()?
            }
            layers => layers.iter().map(split).collect::<Result<_>>()?,
        };
        parts.try_into().map_err(|_| candle_core::Error::Msg("there are other projections".to_owned()))
    }
}
