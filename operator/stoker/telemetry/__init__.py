"""What Stoker tells about itself: metrics, health, Events and logs. Nothing here decides anything."""
