//! The memory that all recordings of a pool read their inputs from and write their outputs to.
//!
//! They are done one after the other on one stream, so each place of it serves all of them: what recordings take beside the
//! memory within them, which the driver shares out among graphs of a stream, depends on the largest alone and not on
//! their number.
//!
//! A place knows which tensor was copied to it last. Positions, which no step changes, and what ranges of one forward are all
//! given lie there already when the next one wants them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor, TensorId};

/// Places by what lies there.
#[derive(Debug, Default)]
pub(super) struct Desk(HashMap<(Place, DType), Memory>);

/// What a place has, which recordings of several shapes share.
#[derive(Debug, Clone)]
struct Memory {
    values: Tensor,
    /// The tensor that was copied to its beginning. No other one ever has the same id.
    holds: Arc<Mutex<Option<TensorId>>>,
}

/// Where a recording reads an input.
#[derive(Debug)]
pub(super) struct InputPlace {
    values: Tensor,
    holds: Arc<Mutex<Option<TensorId>>>,
}

impl InputPlace {
    pub(super) fn values(&self) -> &Tensor {
        &self.values
    }

    /// Copies an input there, unless it was the last that was. Its values must not change once it was given. Whoever calls has
    /// the desk to himself.
    pub(super) fn put(&self, input: &Tensor) -> Result<()> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if *holds == Some(input.id()) {
            return Ok(());
        }
        // Half a copy is neither tensor.
        *holds = None;
        overwrite(&self.values, input)?;
        *holds = Some(input.id());
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// By its number.
    Input(usize),
    Output(usize),
}

impl Desk {
    /// Places for inputs like these, which lie there already.
    pub(super) fn inputs(&mut self, inputs: &[Option<Tensor>]) -> Result<Vec<Option<InputPlace>>> {
        let place = |(number, input): (usize, &Option<Tensor>)| {
            let Some(input) = input else { return Ok(None) };
            let Memory { values, holds } =
                self.memory((Place::Input(number), input.dtype()), input.elem_count(), input.device())?;
            let place = InputPlace { values: beginning(&values, input.dims())?, holds };
            place.put(input)?;
            Ok(Some(place))
        };
        inputs.iter().enumerate().map(place).collect()
    }

    /// Places for outputs of these dtypes and shapes.
    pub(super) fn outputs(&mut self, shapes: &[(DType, Vec<usize>)], device: &Device) -> Result<Vec<Tensor>> {
        let place = |(number, (dtype, dims)): (usize, &(DType, Vec<usize>))| {
            let memory = self.memory((Place::Output(number), *dtype), dims.iter().product(), device)?;
            beginning(&memory.values, dims)
        };
        shapes.iter().enumerate().map(place).collect()
    }

    /// Of a place, for so many values. One that is too small is left to those recordings that have it; sizes double, so that
    /// all that are left together are no larger than the new one.
    fn memory(&mut self, key: (Place, DType), values: usize, device: &Device) -> Result<Memory> {
        if let Some(known) = self.0.get(&key).filter(|known| known.values.elem_count() >= values) {
            return Ok(known.clone());
        }
        let made = Memory { values: Tensor::zeros(values.next_power_of_two(), key.1, device)?, holds: Arc::default() };
        self.0.insert(key, made.clone());
        Ok(made)
    }
}

/// As much of a place as a tensor of this shape takes.
fn beginning(whole: &Tensor, dims: &[usize]) -> Result<Tensor> {
    whole.narrow(0, 0, dims.iter().product())?.reshape(dims)
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
        assert_eq!(placed[1].as_ref().unwrap().values().to_vec2::<f32>().unwrap(), [[1.0, 3.0], [2.0, 4.0]]);
    }

    #[test]
    fn what_lies_there_is_not_copied_again() {
        let [first, other] = [1f32, 2.0].map(|value| Tensor::new(&[value], &Device::Cpu).unwrap());
        let place = Desk::default().inputs(&[Some(first.clone())]).unwrap().remove(0).unwrap();
        let value = || place.values().to_vec1::<f32>().unwrap()[0];
        // Behind its back, which shows whether it is copied.
        overwrite(place.values(), &Tensor::new(&[7f32], &Device::Cpu).unwrap()).unwrap();
        place.put(&first).unwrap();
        assert_eq!(value(), 7.0);
        place.put(&other).unwrap();
        assert_eq!(value(), 2.0);
        place.put(&first).unwrap();
        assert_eq!(value(), 1.0);
        // What cannot be copied may have been written in part.
        assert!(place.put(&Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap()).is_err());
        overwrite(place.values(), &other).unwrap();
        place.put(&first).unwrap();
        assert_eq!(value(), 1.0);
    }
}
