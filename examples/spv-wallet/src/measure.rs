pub(crate) async fn run(_: u32, _: u32, _: bool) -> Result<(), crate::Failure> {
    Ok(())
}
