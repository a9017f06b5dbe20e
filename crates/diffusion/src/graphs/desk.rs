//! The memory that all recordings of a pool read their inputs from and write their outputs to.
//!
//! They are done one after the other on one stream, so each place of it serves all of them: what recordings take beside the
//! memory within them, which the driver shares out among graphs of a stream, depends on the largest alone and not on
//! their number.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};

/// Places by what lies there.
#[derive(Debug, Default)]
pub(super) struct Desk(HashMap<(Place, DType), Tensor>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// By its number.
    Input(usize),
    Output(usize),
}

impl Desk {
    /// Places for inputs like these, which lie there already.
    pub(super) fn inputs(&mut self, inputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let place = |(number, input): (usize, &Option<Tensor>)| {
            let Some(input) = input else { return Ok(None) };
            let own = self.place((Place::Input(number), input.dtype()), input.dims(), input.device())?;
            overwrite(&own, input)?;
            Ok(Some(own))
        };
        inputs.iter().enumerate().map(place).collect()
    }

    /// Places for outputs of these dtypes and shapes.
    pub(super) fn outputs(&mut self, shapes: &[(DType, Vec<usize>)], device: &Device) -> Result<Vec<Tensor>> {
        let place = |(number, (dtype, dims)): (usize, &(DType, Vec<usize>))| {
            self.place((Place::Output(number), *dtype), dims, device)
        };
        shapes.iter().enumerate().map(place).collect()
    }

    /// The beginning of a place. One that is too small is left to those recordings that have it; sizes double, so that all that
    /// are left together are no larger than the new one.
    fn place(&mut self, key: (Place, DType), dims: &[usize], device: &Device) -> Result<Tensor> {
        let values = dims.iter().product::<usize>();
        let known = self.0.get(&key).filter(|tensor| tensor.elem_count() >= values).cloned();
        let whole = match known {
            Some(whole) => whole,
            None => Tensor::zeros(values.next_power_of_two(), key.1, device)?,
        };
        self.0.insert(key, whole.clone());
        whole.narrow(0, 0, values)?.reshape(dims)
    }
}

/// Copies values into a tensor that stays where it is.
pub(super) fn overwrite(own: &Tensor, values: &Tensor) -> Result<()> {
    own.flatten_all()?.slice_set(&values.contiguous()?.flatten_all()?, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_share_places_by_number_and_dtype() {
        let mut desk = Desk::default();
        let mut place =
            |dtype, dims: &[usize]| desk.outputs(&[(dtype, dims.to_vec())], &Device::Cpu).unwrap().remove(0);
        let (large, small, other) = (place(DType::F32, &[3, 2]), place(DType::F32, &[4]), place(DType::U32, &[4]));
        overwrite(&small, &Tensor::new(&[1f32, 2.0, 3.0, 4.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(large.to_vec2::<f32>().unwrap(), [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]);
        assert_eq!(other.to_vec1::<u32>().unwrap(), [0; 4]);
        // Room for eight values was made.
        let larger = place(DType::F32, &[8]);
        assert_eq!(larger.to_vec1::<f32>().unwrap()[..4], [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(place(DType::F32, &[9]).to_vec1::<f32>().unwrap(), [0.0; 9]);
    }

    #[test]
    fn inputs_lie_where_they_will_be_read() {
        let input = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let placed = Desk::default().inputs(&[None, Some(input.t().unwrap())]).unwrap();
        assert!(placed[0].is_none());
        assert_eq!(placed[1].as_ref().unwrap().to_vec2::<f32>().unwrap(), [[1.0, 3.0], [2.0, 4.0]]);
    }
}
