//! Who leads. The rule looks only at what members tell about themselves, so that all who hear the same elect the same.

use std::cmp::Reverse;

use super::{Force, MemberInfo, Status};

/// The master among the members: the one forced last; without any, the most senior. Ties go to the smaller id. The dead
/// and those forced not to be are no candidates.
pub(crate) fn elect<'a, Id: Ord>(
    members: impl Iterator<Item = &'a MemberInfo<Id>>,
) -> Option<&'a MemberInfo<Id>> {
    members
        .filter_map(|member| Some((rank(member)?, member)))
        .min_by(|(a, _), (b, _)| a.cmp(b))
        .map(|(_, member)| member)
}

/// The smallest leads; `None` is no candidate.
fn rank<Id>(member: &MemberInfo<Id>) -> Option<(Reverse<Option<u64>>, u64, &Id)> {
    match member.status {
        Status::Dead => return None,
        Status::Healthy | Status::Slow | Status::Warning => {}
    }
    match member.force {
        Force::NotMaster => None,
        Force::Master { at } => Some((Reverse(Some(at)), 0, &member.id)),
        Force::None => Some((Reverse(None), member.connected_since, &member.id)),
    }
}

#[cfg(test)]
mod tests;
